"""Reads the files that a configuration names, as a start does, and reports those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime

from tunnel.check.preflight import run
from tunnel.config.model import Acme, IdentityConfig, PolicyFiles, ProcessConfig, WorkloadApi
from tunnel.errors import ConfigError, IdentityError
from tunnel.keystore.revocation_lists import load_revocation
from tunnel.lazy_dataclass import dataclass
from tunnel.listener.generation import check_presentable, revocation_warnings
from tunnel.proxy.file_source import load_credentials
from tunnel.proxy.reloadable_policy import ReloadablePolicy


@dataclass(frozen=True, slots=True)
class FileProblem:
    """What is wrong with a file: the key path of what names it, and whether a start would only warn about it."""

    key: str
    text: str
    is_warning: bool = False


def find_file_problems(config: ProcessConfig, environ: Mapping[str, str], now: datetime) -> Iterator[FileProblem]:
    """Read certificates, keys, CA certificates, revocation lists and policies; nothing is contacted."""
    for identity in dict.fromkeys(listener.identity for listener in config.listeners):
        yield from _examine_identity(config, identity, environ, now)
    policies = {listener.access.policy: listener for listener in reversed(config.listeners)}
    for policy, listener in reversed(policies.items()):
        if policy is not None:
            yield from _examine_policy(f"{listener.mode} {listener.name}", policy, listener.connect_timeout)


def _examine_identity(
    config: ProcessConfig, identity: IdentityConfig, environ: Mapping[str, str], now: datetime
) -> Iterator[FileProblem]:
    key = f"identity.{identity.name}"
    try:
        if isinstance(identity.source, WorkloadApi | Acme):
            load_revocation(identity.revocation)
            return
        credentials = load_credentials(identity, environ)
        for options in {listener.tls for listener in config.listeners if listener.identity == identity}:
            check_presentable(credentials, options)
    except IdentityError as error:
        yield FileProblem(key, str(error))
    else:
        for text in revocation_warnings(credentials, now):
            yield FileProblem(key, text, is_warning=True)


def _examine_policy(key: str, policy: PolicyFiles, limit: float) -> Iterator[FileProblem]:
    with closing(ReloadablePolicy(policy, limit)) as reloadable:
        try:
            run(reloadable.load)
        except ConfigError as error:
            yield FileProblem(key, str(error))
