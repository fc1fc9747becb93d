"""Runs the preflight checks in the order in which a start needs their results; a check without its input is skipped."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing
from typing import assert_never

from tunnel.check.agent import examine_agent
from tunnel.check.files import examine_files
from tunnel.check.finding import Finding, Steps, ok, problem, skipped, warning
from tunnel.check.identity import examine_identity
from tunnel.check.listening import examine_listener
from tunnel.check.preflight import Preflight, run
from tunnel.check.revocation import examine_lists
from tunnel.check.rules import describe_rules
from tunnel.check.target import examine_target
from tunnel.check.workload_attributes import WorkloadAttributes, describe_workload, read_workload_attributes
from tunnel.config.model import Acme, KeyFiles, Keystore, NoIdentity, Traces, WorkloadApi
from tunnel.errors import ConfigError, describe_os_error
from tunnel.identity.credentials import Credentials
from tunnel.listener.generation import GenerationConfig
from tunnel.log_file import check_log_file
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.sandbox.landlock import FIRST_WITH_SCOPES, Linux
from tunnel.tracing.trace_export import open_traces

_MIN_DESCRIPTORS = 1024
_FIRST_WITH_NET = 4  # version of Landlock


def diagnose(preflight: Preflight) -> Iterator[Finding]:
    """Yield every finding as soon as it is known."""
    config = preflight.config
    refusal = preflight.line.refusal
    if refusal is not None:
        yield problem("command-line", str(refusal), "correct the command line; the rest of it is checked below")
    for text in config.warnings:
        yield warning("command-line", text, "correct the command line if this is not intended")
    attributes = read_workload_attributes(preflight.environ)
    yield from describe_workload(attributes)
    credentials = yield from _examine_source(preflight, attributes)
    if credentials is not None:
        credentials = yield from examine_lists(preflight, credentials)
    yield from describe_rules(preflight, credentials)
    if config.listen is not None:
        yield examine_listener("listen", config.listen)
    for monitor in preflight.line.config.monitors:
        if monitor.status is not None:
            yield examine_listener("status", monitor.status.address.address)
        if monitor.health is not None:
            yield examine_listener("health", monitor.health.address)
    if access_log := preflight.line.config.log.access.path:
        yield examine_access_log(access_log)
    if preflight.line.config.traces is not None:
        yield examine_traces(preflight.line.config.traces)
    if preflight.line.is_route_known:
        yield from _examine_with_policy(preflight, credentials)
    else:
        yield skipped("target", "--proxy is not valid, and the target must not be reached without it")
    yield from examine_machine(is_confined=preflight.line.config.is_confined)


def _examine_source(preflight: Preflight, attributes: WorkloadAttributes) -> Steps[Credentials | None]:
    """Return the credentials that a proxy would use, or None."""
    source = preflight.config.identity.source
    match source:
        case WorkloadApi():
            context = yield from examine_agent(preflight, source, attributes)
            if context is not None:
                return (yield from examine_identity(context, source.selection, preflight.now))
            yield skipped("identity", "no identity from the agent")
        case Acme():
            yield skipped("certificate", f"an ACME server issues it for {source.domain} when the proxy starts")
        case NoIdentity() if preflight.line.refusal is not None:
            yield skipped("identity", "no identity source is configured")
        case NoIdentity() | KeyFiles() | Keystore():
            return (yield from examine_files(preflight, source))
        case _:
            assert_never(source)
    return None


def _examine_with_policy(preflight: Preflight, credentials: Credentials | None) -> Steps[None]:
    config = preflight.config
    generation_config = GenerationConfig(config.is_server, config.access, config.host, config.tls)
    if config.access.policy is None:
        yield from examine_target(preflight, credentials, generation_config)
        return
    with closing(ReloadablePolicy(config.access.policy, config.connect_timeout)) as reloadable_policy:
        try:
            run(reloadable_policy.load)
        except ConfigError as error:
            yield problem("policy", str(error), "correct the policy or the query (opa check, opa eval)")
            yield from examine_target(preflight, credentials, None)
        else:
            yield ok("policy", f"{config.access.policy.path} compiles")
            yield from examine_target(preflight, credentials, generation_config.with_policy(reloadable_policy.rule))


def examine_access_log(path: str) -> Finding:
    """Check whether the file of the access log can be opened, without creating it."""
    try:
        check_log_file(path)
    except ConfigError as error:
        return problem("access-log", str(error), "create the directory, correct its permissions, or change --access-log-target")
    return ok("access-log", f"{path} can be written")


def examine_traces(traces: Traces) -> Finding:
    """Check whether the libraries for traces are installed, and the settings usable; the collector is not contacted."""
    try:
        open_traces(traces, announce=lambda _: None, report=lambda _: None)
    except ConfigError as error:
        return problem("traces", str(error), "install the extra, or correct the URL or the file of --traces-ca")
    return ok("traces", f"OpenTelemetry is installed; a share of {traces.ratio:g} of the connections is traced")


def examine_machine(*, is_confined: bool) -> Iterator[Finding]:
    """Check the limit of descriptors, and Landlock support."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    detail = f"{hard} descriptors, two for each connection"
    if hard < _MIN_DESCRIPTORS:
        yield warning("descriptors", detail, "raise the limit of the process (LimitNOFILE=, ulimit -Hn)")
    else:
        yield ok("descriptors", detail)
    yield _examine_landlock(is_confined=is_confined)


def _examine_landlock(*, is_confined: bool) -> Finding:
    if not is_confined:
        return ok("landlock", "disabled by --disable-landlock")
    try:
        version = Linux().version()
    except OSError as error:
        detail = f"not available: {describe_os_error(error)}"
        return warning("landlock", detail, "the proxy runs without Landlock, and logs that")
    scope = "files and ports" if version >= _FIRST_WITH_NET else "files, not ports, which need a newer kernel"
    processes = ", and isolates it from other processes" if version >= FIRST_WITH_SCOPES else ""
    return ok("landlock", f"version {version}: restricts the process to its {scope}{processes}")
