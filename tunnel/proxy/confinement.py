"""Restricts the process to the files, ports and URLs that its configuration names.

Call `confine` before any thread exists: a thread that exists already is not restricted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tunnel.config.acme import complete_acme
from tunnel.config.model import Acme, KeyFiles, Keystore, ProxyConfig, WorkloadApi
from tunnel.log import Log
from tunnel.net.address import Address, ListenAddress, TcpAddress, UnixAddress
from tunnel.sandbox.landlock import apply_landlock
from tunnel.sandbox.rules import Needs


def confine(
    configs: Sequence[ProxyConfig],
    environ: Mapping[str, str],
    log: Log,
    *,
    private: tuple[str, ...] = (),
    has_command: bool = False,
) -> None:
    """Restrict the process to what the configurations need, as far as the kernel can; raises ConfigError and IdentityError.

    `private` are directories that the process has created; `has_command` is whether it also runs a command.
    """
    needs = Needs(private=private, has_command=has_command)
    for config in configs:
        needs = needs.union(needs_of(config))
        if isinstance(config.source, Acme):
            needs = _with_acme(needs, config.source, environ)
    apply_landlock(needs, environ, log.info)


def needs_of(config: ProxyConfig) -> Needs:
    """Return the files, ports and URLs that a configuration names."""
    return Needs(
        files=tuple(path for path in _files(config) if path),
        listens=tuple(_listens(config)),
        dials=tuple(_dials(config)),
        urls=(config.metrics.url,) if config.metrics.url else (),
        has_policy=config.access.policy is not None,
    )


def _files(config: ProxyConfig) -> Iterator[str]:
    yield config.ca_bundle
    if isinstance(config.source, KeyFiles):
        yield from (config.source.cert, config.source.key)
    if isinstance(config.source, Keystore):
        yield config.source.path
    if config.access.policy is not None:
        yield config.access.policy.path


def _listens(config: ProxyConfig) -> Iterator[ListenAddress]:
    if config.listen is not None:
        yield config.listen
    if config.status is not None:
        yield config.status.address.address


def _dials(config: ProxyConfig) -> Iterator[Address]:
    yield config.target
    if config.outbound is not None:
        yield config.outbound.address
    if config.metrics.graphite is not None:
        yield config.metrics.graphite
    if isinstance(config.source, WorkloadApi) and config.source.endpoint.path:
        yield UnixAddress(config.source.endpoint.path)
    elif isinstance(config.source, WorkloadApi):
        yield TcpAddress(config.source.endpoint.host, str(config.source.endpoint.port))


def _with_acme(needs: Needs, source: Acme, environ: Mapping[str, str]) -> Needs:
    """Add what an ACME source needs, and create its storage directory."""
    from tunnel.acme.storage import Storage  # loads cryptography

    acme = complete_acme(source, environ)
    return replace(
        needs,
        directories=(*needs.directories, str(Storage(acme).make_folder())),
        listens=(*needs.listens, TcpAddress("", str(acme.challenge_port))),
        urls=(*needs.urls, acme.directory_url),
    )
