"""Checks the Workload API: address, socket, and the agent's answer to this process (Workload API, sections 4 and 5)."""

from __future__ import annotations

import socket

import trio

from tunnel.check.finding import Finding, Steps, Verdict, ok, problem, skipped
from tunnel.check.preflight import Preflight, run
from tunnel.check.sockets import examine_socket
from tunnel.check.validity import COMPARE_CLOCKS
from tunnel.check.workload_attributes import WorkloadAttributes, selectors_for
from tunnel.config.model import WorkloadApi
from tunnel.errors import Denial, IdentityError, PeerDenied, describe_os_error
from tunnel.identity.credentials import X509Context
from tunnel.identity.event_channel import EventChannel, open_event_channel
from tunnel.identity.events import Denied, Disconnected, FatalError, Rejected, Updated, WorkloadEvent
from tunnel.identity.wait_notice import wait_with_notice
from tunnel.spiffe.endpoint import WorkloadEndpoint

ADDRESS, SOCKET, API = "workload-api-address", "workload-api-socket", "workload-api"
_AGENT = "the agent"
_CONNECT = 5.0  # seconds


def examine_agent(preflight: Preflight, source: WorkloadApi, attributes: WorkloadAttributes) -> Steps[X509Context | None]:
    """Return the agent's update for this process, or None."""
    yield ok(ADDRESS, f"{source.endpoint}, from {preflight.origin}")
    reached = _examine_endpoint(source.endpoint)
    yield reached
    if reached.verdict is Verdict.PROBLEM:
        yield skipped(API, "the agent is not reachable")
        return None
    event = _AgentQuery(preflight, source).run()
    if isinstance(event, Updated):
        count = len(event.context.offered)
        yield ok(API, f"the agent has {count} identit{'y' if count == 1 else 'ies'} for this process")
        return event.context
    yield _explain(event, preflight, attributes)
    return None


def _examine_endpoint(endpoint: WorkloadEndpoint) -> Finding:
    if endpoint.path:
        return examine_socket(SOCKET, endpoint.path, _AGENT)
    try:
        socket.create_connection((endpoint.host, endpoint.port), _CONNECT).close()
    except OSError as error:
        return problem(SOCKET, f"{endpoint}: {describe_os_error(error)}", "start the agent, or correct the address")
    return ok(SOCKET, f"{endpoint} accepts connections")


class _AgentQuery:
    """Waits for the first conclusive event, with the proxy's own watcher."""

    def __init__(self, preflight: Preflight, source: WorkloadApi) -> None:
        self._preflight = preflight
        self._source = source
        self._newest: WorkloadEvent | None = None

    def run(self) -> WorkloadEvent | None:
        """Return the first event that is no Disconnected; after the time limit the last event, if any."""
        return run(self._wait)

    async def _wait(self) -> WorkloadEvent | None:
        source = self._source
        async with open_event_channel(source.endpoint, source.selection, wall=self._preflight.clock) as events:
            with trio.move_on_after(self._preflight.limit):
                await wait_with_notice(lambda: self._receive(events), self._notify)
        return self._newest

    async def _receive(self, events: EventChannel) -> None:
        async for event in events:
            self._newest = event
            if not isinstance(event, Disconnected):
                return

    def _notify(self) -> None:
        limit = self._preflight.limit
        self._preflight.on_wait(f"waiting for an identity, up to {limit:g}s: {_describe_status(self._newest)}")


def _describe_status(event: WorkloadEvent | None) -> str:
    return f"{event.code} {event.details}".strip() if isinstance(event, Disconnected) else "no answer from the agent yet"


def _explain(event: WorkloadEvent | None, preflight: Preflight, attributes: WorkloadAttributes) -> Finding:
    if isinstance(event, Denied):
        return _explain_denial(event, attributes)
    if isinstance(event, Disconnected):
        detail = f"the socket accepts connections, but the call fails ({_describe_status(event)})"
        return problem(API, detail, "check that it is a healthy agent: spire-agent healthcheck, and the agent's log")
    if isinstance(event, FatalError):
        return _explain_fatal(event)
    if isinstance(event, Rejected):
        return _explain_rejection(event.error)
    detail = f"the socket accepts connections, but there is no answer within {preflight.limit:g}s"
    return problem(API, detail, "check that it is the agent's Workload API; if so, the agent hangs: see its log, restart it")


def _explain_denial(event: Denied, attributes: WorkloadAttributes) -> Finding:
    selectors = " ".join(f"-selector {selector}" for selector in selectors_for(attributes))
    return problem(
        API,
        f"the agent has no identity for this process ({_describe_status(event)})",
        "create an entry for it, or correct the selectors of its entry, all of which must match the process above: "
        f"spire-server entry create -parentID AGENT-ID -spiffeID spiffe://DOMAIN/NAME {selectors}; a new entry takes some "
        "seconds to reach the agent",
    )


def _explain_fatal(event: FatalError) -> Finding:
    detail = str(event.error)
    if event.code == "INVALID_ARGUMENT":
        advice = (
            "tunnel sends the header workload.spiffe.io: true once with every request: check that nothing between tunnel and "
            "the agent removes or duplicates it"
        )
        return problem(API, detail, advice)
    if event.code == "UNIMPLEMENTED":
        advice = "this is another API: use the Workload API socket, not the admin socket of the agent or a socket of the server"
        return problem(API, detail, advice)
    return problem(API, detail, "this is a bug in tunnel: please report it")


def _explain_rejection(error: IdentityError) -> Finding:
    detail = f"the agent's answer is not usable: {error.reason.value}: {error}"
    cause = error.__cause__
    if isinstance(cause, PeerDenied) and cause.reason is Denial.EXPIRED:
        return problem(API, detail, f"this clock is fast, or the agent cannot renew (see its log): {COMPARE_CLOCKS}")
    if isinstance(cause, PeerDenied) and cause.reason is Denial.NOT_YET_VALID:
        return problem(API, detail, f"this clock is slow: {COMPARE_CLOCKS}")
    return problem(API, detail, "the issuer breaks a rule of X509-SVID: see the configuration of the SPIRE server")
