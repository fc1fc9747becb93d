"""What the agent behind a Workload API address says to this process.

Knows its socket, and what each status (Workload API, sections 4 and 5) means to an operator; must not know what is done with
an identity. The watcher is the proxy's own.
"""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable

from tunnel.check.case import Case
from tunnel.check.finding import Finding, Steps, Verdict, ok, problem, skipped
from tunnel.check.sockets import examine_socket
from tunnel.check.workload_attributes import WorkloadAttributes, selectors_for
from tunnel.config.model import WorkloadApi
from tunnel.errors import Denial, IdentityError, PeerDenied, describe_os_error
from tunnel.identity.credentials import X509Context
from tunnel.identity.events import Denied, Disconnected, FatalError, Rejected, Updated, WorkloadEvent
from tunnel.identity.workload import WorkloadWatcher
from tunnel.spiffe.endpoint import WorkloadEndpoint

ADDRESS, SOCKET, API = "workload-api-address", "workload-api-socket", "workload-api"
_AGENT = "the agent"
_CONNECT = 5.0  # seconds
_WAIT_LIMIT = 2.0  # seconds after which somebody at a terminal wants to know why nothing happens
_CLOCK = "compare this clock with the agent's (timedatectl, chronyc tracking)"


def examine_agent(case: Case, source: WorkloadApi, caller: WorkloadAttributes) -> Steps[X509Context | None]:
    """The update that the agent has for us, or None."""
    yield ok(ADDRESS, f"{source.endpoint}, from {case.origin}")
    reached = _examine_endpoint(source.endpoint)
    yield reached
    if reached.verdict is Verdict.PROBLEM:
        yield skipped(API, "nobody to ask")
        return None
    event = _ask(case, source)
    if isinstance(event, Updated):
        count = len(event.context.offered)
        yield ok(API, f"the agent has {count} identit{'y' if count == 1 else 'ies'} for this process")
        return event.context
    yield _explain(event, case, caller)
    return None


def _examine_endpoint(endpoint: WorkloadEndpoint) -> Finding:
    if endpoint.path:
        return examine_socket(SOCKET, endpoint.path, _AGENT)
    try:
        socket.create_connection((endpoint.host, endpoint.port), _CONNECT).close()
    except OSError as error:
        return problem(SOCKET, f"{endpoint}: {describe_os_error(error)}", "start the agent, or mend the address")
    return ok(SOCKET, f"{endpoint} accepts connections")


def _ask(case: Case, source: WorkloadApi) -> WorkloadEvent | None:
    """The first event that settles it; else the last one within the limit, if any."""
    events: queue.SimpleQueue[WorkloadEvent] = queue.SimpleQueue()
    watcher = WorkloadWatcher(source.endpoint, events.put, source.selection, wall=case.clock)
    watcher.start()
    try:
        return _await(events, case.limit, case.say)
    finally:
        watcher.stop()


def _await(events: queue.SimpleQueue[WorkloadEvent], limit: float, say: Callable[[str], None]) -> WorkloadEvent | None:
    began = time.monotonic()
    newest: WorkloadEvent | None = None
    has_said = False
    while (left := began + limit - time.monotonic()) > 0:
        try:
            newest = events.get(timeout=left if has_said else min(left, _WAIT_LIMIT))
        except queue.Empty:
            if not has_said:
                has_said = True
                say(f"waiting for an identity, up to {limit:g}s: {_complaint(newest)}")
            continue
        if not isinstance(newest, Disconnected):
            return newest
    return newest


def _complaint(event: WorkloadEvent | None) -> str:
    return f"{event.code} {event.details}".strip() if isinstance(event, Disconnected) else "the agent has not answered yet"


def _explain(event: WorkloadEvent | None, case: Case, caller: WorkloadAttributes) -> Finding:
    if isinstance(event, Denied):
        return _explain_denial(event, caller)
    if isinstance(event, Disconnected):
        seen = f"somebody listens, and the call breaks off ({_complaint(event)})"
        return problem(API, seen, "is it an agent, and is it well? See spire-agent healthcheck, and the agent's log")
    if isinstance(event, FatalError):
        return _explain_fatal(event)
    if isinstance(event, Rejected):
        return _explain_rejection(event.error)
    seen = f"somebody listens, and does not answer within {case.limit:g}s"
    return problem(API, seen, "is it the agent's Workload API? If so, it hangs: see its log, restart it")


def _explain_denial(event: Denied, caller: WorkloadAttributes) -> Finding:
    selectors = " ".join(f"-selector {selector}" for selector in selectors_for(caller))
    return problem(
        API,
        f"the agent answers, and has no identity for this process ({_complaint(event)})",
        "register it, or mend the selectors of its entry, each of which must fit the process above: spire-server entry create "
        f"-parentID AGENT-ID -spiffeID spiffe://DOMAIN/NAME {selectors}; a new entry takes some seconds to get here",
    )


def _explain_fatal(event: FatalError) -> Finding:
    said = str(event.error)
    if event.code == "INVALID_ARGUMENT":
        advice = (
            "we send the header workload.spiffe.io: true with every request, once: is something between us and the agent "
            "that takes it out or doubles it?"
        )
        return problem(API, said, advice)
    if event.code == "UNIMPLEMENTED":
        advice = "this is another API: not the agent's administration, not the server's, but the socket for workloads"
        return problem(API, said, advice)
    return problem(API, said, "this is a bug of ours: please report it")


def _explain_rejection(error: IdentityError) -> Finding:
    seen = f"the agent's answer cannot be used: {error.reason.value}: {error}"
    cause = error.__cause__
    if isinstance(cause, PeerDenied) and cause.reason is Denial.EXPIRED:
        return problem(API, seen, f"this clock is fast ({_CLOCK}), or the agent cannot renew: see its log")
    if isinstance(cause, PeerDenied) and cause.reason is Denial.NOT_YET_VALID:
        return problem(API, seen, f"this clock is slow: {_CLOCK}")
    return problem(API, seen, "who issued this breaks a rule of X509-SVID: see that server's configuration")
