"""`tunnel server` and `tunnel client`: from a line that could be read to a proxy that runs.

Knows the order of a start, and that whatever fails from here on is said twice: in the log, where an operator looks, and on
standard error, where a script does. Must not know what a proxy does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tunnel.config import proxy
from tunnel.config.grammar import Arguments, Command
from tunnel.config.model import Acme, KeyFiles, Keystore, LogConfig, NoIdentity, ProxyConfig, WorkloadApi
from tunnel.errors import TunnelError
from tunnel.log import Category, Log, escape, one_line
from tunnel.net.activation import take_inherited
from tunnel.net.address import Address, TcpAddress
from tunnel.net.notify import Notifier
from tunnel.strays import Strays
from tunnel.syslog import open_syslog

if TYPE_CHECKING:  # loaded only where a process is to be confined
    from tunnel.sandbox.rules import Needs


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until told to stop; the exit code. Raises ConfigError for a line that is wrong on the face of it."""
    inherited = take_inherited(environ, os.getpid())  # before anything is started that they do not concern
    notifier = Notifier(environ, os.getpid())
    log = _open_log(proxy.check_line(arguments))
    strays = Strays()
    strays.install()
    try:
        log.write(f"starting tunnel in {command.name} mode")
        config = proxy.build(command, arguments)
        _announce(config, log)
        # Loaded before it is confined: trio looks for a library by running programs, and tries more of them where it may not.
        from tunnel.proxy.process import run_proxy
        from tunnel.proxy.surroundings import Surroundings

        if config.is_confined:
            _confine(config, environ, log)
        return run_proxy(config, log, Surroundings(environ, inherited, notifier, strays))
    except TunnelError as error:
        log.write(f"error: {error}")
        log.flush()
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1


def _open_log(config: LogConfig) -> Log:
    name = os.path.basename(sys.argv[0])
    sink = open_syslog("tunnel" if name == "__main__.py" else name, os.getpid()) if config.is_syslog else None
    return Log([Category(word) for word in config.quiet if word], sink=sink)


def _confine(config: ProxyConfig, environ: Mapping[str, str], log: Log) -> None:
    """Keep the process to what its flags name; before any thread exists, since one that does would not be kept."""
    from tunnel.sandbox.landlock import set_up
    from tunnel.sandbox.rules import Needs

    dials: list[Address] = [config.target]
    if config.metrics.graphite is not None:
        dials.append(config.metrics.graphite)
    if isinstance(config.source, WorkloadApi) and config.source.endpoint.host:
        dials.append(TcpAddress(config.source.endpoint.host, str(config.source.endpoint.port)))
    needs = Needs(
        files=tuple(filter(None, _files(config))),
        listens=(config.listen, *((config.status.address.address,) if config.status else ())),
        dials=tuple(dials),
        urls=(config.metrics.url,) if config.metrics.url else (),
        proxy=str(config.outbound or ""),
    )
    if isinstance(config.source, Acme):
        needs = _with_acme(needs, config.source, environ)
    set_up(needs, environ, log.write)


def _with_acme(needs: Needs, source: Acme, environ: Mapping[str, str]) -> Needs:
    """What is needed besides for a certificate from an ACME server; where it is kept is there from now on."""
    from tunnel.acme.storage import Storage
    from tunnel.config.acme import complete_acme

    acme = complete_acme(source, environ)
    return replace(
        needs,
        directories=(*needs.directories, str(Storage(acme).make_folder())),
        listens=(*needs.listens, TcpAddress("", str(acme.challenge_port))),
        urls=(*needs.urls, acme.directory_url),
    )


def _files(config: ProxyConfig) -> Iterator[str]:
    yield config.ca_bundle
    if isinstance(config.source, KeyFiles):
        yield from (config.source.cert, config.source.key)
    if isinstance(config.source, Keystore):
        yield config.source.path
    if config.access.policy is not None:
        yield config.access.policy.path


def _announce(config: ProxyConfig, log: Log) -> None:
    for warning in config.warnings:
        log.write(f"warning: {escape(warning)}")
    if config.outbound is not None:
        log.write(f"using proxy {config.outbound}")
    if isinstance(config.source, NoIdentity):
        log.write("no cert source configured -- running without certificate")
    else:
        where = f": {config.source.endpoint}" if isinstance(config.source, WorkloadApi) else ""
        log.write(f"using {config.source} as certificate source{where}")
