"""The whole check, in the order in which things are needed.

Knows which step goes on from which; must not know how any of it is looked at. Everything that can be said is said: a step that
needs what an earlier one has not found says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from tunnel.check.agent import examine_agent
from tunnel.check.case import Case
from tunnel.check.files import examine_files
from tunnel.check.finding import Finding, Steps, ok, problem, skipped, warning
from tunnel.check.identity import examine_identity
from tunnel.check.limits import run
from tunnel.check.listening import examine_listener
from tunnel.check.machine import examine_machine
from tunnel.check.rules import describe_rules
from tunnel.check.target import examine_target
from tunnel.check.workload_attributes import WorkloadAttributes, describe_workload, read_workload_attributes
from tunnel.config.model import Acme, NoIdentity, WorkloadApi
from tunnel.errors import ConfigError
from tunnel.identity.credentials import Credentials
from tunnel.proxy.generation import GenerationConfig
from tunnel.proxy.reloadable_policy import ReloadablePolicy


def diagnose(case: Case) -> Iterator[Finding]:
    """Every finding, as soon as it is there."""
    config = case.config
    refusal = case.line.refusal
    if refusal is not None:
        yield problem("command-line", str(refusal), "mend the line; what else of it can be looked at follows")
    for text in config.warnings:
        yield warning("command-line", text, "mend the line if that is not what was meant")
    caller = read_workload_attributes(case.environ)
    yield from describe_workload(caller)
    credentials = yield from _examine_source(case, caller)
    yield from describe_rules(case, credentials)
    if config.listen is not None:
        yield examine_listener("listen", config.listen)
    if config.status is not None:
        yield examine_listener("status", config.status.address.address)
    if case.line.is_way_known:
        yield from _examine_with_policy(case, credentials)
    else:
        yield skipped("target", "--proxy is wrong, and the target is not to be reached around it")
    yield from examine_machine(is_confined=config.is_confined)


def _examine_source(case: Case, caller: WorkloadAttributes) -> Steps[Credentials | None]:
    """What a proxy would show and trust, or None."""
    source = case.config.source
    match source:
        case WorkloadApi():
            context = yield from examine_agent(case, source, caller)
            if context is not None:
                return (yield from examine_identity(context, source.selection, case.now))
            yield skipped("identity", "the agent has told us none")
        case Acme():
            yield skipped("certificate", f"an ACME server issues it for {source.domain} when the proxy starts")
        case NoIdentity() if case.line.refusal is not None:
            yield skipped("identity", "the line names no source of one that could be looked at")
        case _:
            return (yield from examine_files(case, source))
    return None


def _examine_with_policy(case: Case, credentials: Credentials | None) -> Steps[None]:
    config = case.config
    generation_config = GenerationConfig(config.is_server, config.access, config.host, config.tls)
    if config.access.policy is None:
        yield from examine_target(case, credentials, generation_config)
        return
    with closing(ReloadablePolicy(config.access.policy, config.connect_timeout)) as reloadable_policy:
        try:
            run(reloadable_policy.load)
        except ConfigError as error:
            yield problem("policy", str(error), "mend the policy or the query (opa check, opa eval)")
            yield from examine_target(case, credentials, None)
        else:
            yield ok("policy", f"{config.access.policy.path} compiles")
            yield from examine_target(case, credentials, generation_config.with_policy(reloadable_policy.rule))
