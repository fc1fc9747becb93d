"""Whether the target answers: by a connection, and for a client by a handshake with whoever is there.

Knows names, ways and verdicts, and what to write where a verdict is no; must not know TLS. The handshake is the proxy's own,
with its contexts, its verifier and its rules, as the status port makes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from tunnel.authz.authorizer import Admitted
from tunnel.authz.peer import parse_peer
from tunnel.check.case import Case
from tunnel.check.finding import Finding, Steps, Verdict, ok, problem, skipped, warning
from tunnel.check.limits import run, within
from tunnel.check.peer import ADMISSION, SERVER, Shown, advice_of, explain_failure, read_shown
from tunnel.check.sockets import examine_socket
from tunnel.check.spans import judge_dates
from tunnel.errors import ConfigError, IdentityError, PeerDenied, TargetError, TargetFault, TunnelError
from tunnel.http.client import parse_http_url
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.net.dial import open_target, open_through
from tunnel.net.sockets import port_number, resolve, resolve_now
from tunnel.proxy.generation import GenerationConfig, build_generation
from tunnel.proxy.settings import tunnel_settings
from tunnel.status.backend_health import OpenStream, check_by_connecting, check_by_handshake, check_by_request
from tunnel.tls.engine import Buffers, TlsEnd
from tunnel.tls.stream import TlsSource

TARGET, STATUS = "target", "target-status"
_REFUSAL = 2.0  # seconds that a server may take to say no when our handshake is over


def examine_target(case: Case, credentials: Credentials | None, generation_config: GenerationConfig | None) -> Steps[None]:
    """Whether the target answers; a client shakes hands with it, for which it needs credentials and generation_config."""
    config = case.config
    is_reached = True  # through a proxy, the handshake will tell
    if config.outbound is None:
        is_reached = yield from _reach(case)
    if config.is_server:
        if config.target_status:
            yield _ask_status(case)
        return
    if not is_reached:
        yield skipped(SERVER, "nobody to shake hands with")
    elif credentials is None:
        yield skipped(SERVER, "without an identity there is no handshake")
    elif generation_config is None:
        yield skipped(SERVER, "without its policy nobody can be judged")
    else:
        yield from _shake_hands(case, credentials, generation_config)


def _way(case: Case) -> OpenStream:
    target, outbound = case.config.target, case.config.outbound
    if outbound is None or isinstance(target, UnixAddress):
        return partial(open_target, target)
    return lambda: open_through(outbound, target.host, port_number(target.port))


def _reach(case: Case) -> Steps[bool]:
    target = case.config.target
    if isinstance(target, UnixAddress):
        found = examine_socket(TARGET, target.path, "whoever serves the target")
    else:
        is_known = yield from _resolve(case, target)
        found = _connect(case) if is_known else skipped(TARGET, "its name is not known")
    yield found
    return found.verdict in (Verdict.OK, Verdict.WARNING)


def _resolve(case: Case, target: TcpAddress) -> Steps[bool]:
    if resolve_now(target) is not None:
        return True
    try:
        found = within(case.config.connect_timeout, partial(resolve, target))
    except (TargetError, TimeoutError) as error:
        advice = advice_of(TargetFault.RESOLVE)
        if case.config.is_resolved_early:
            yield problem("name", str(error), advice)
        else:
            yield warning("name", str(error), f"{advice}; with --skip-resolve the proxy starts all the same")
        return False
    yield ok("name", f"{target.host} is {', '.join(str(endpoint).removeprefix('tcp:') for endpoint in found)}")
    return True


def _connect(case: Case) -> Finding:
    try:
        run(check_by_connecting(_way(case), case.config.connect_timeout))
    except TargetError as error:
        return problem(TARGET, f"{error.reason.value}: {error}", advice_of(error.reason))
    return ok(TARGET, f"{case.config.target} accepts connections")


def _ask_status(case: Case) -> Finding:
    url = case.config.target_status
    try:
        run(check_by_request(partial(open_target, case.config.target), parse_http_url(url), case.config.connect_timeout))
    except (TargetError, ConfigError) as error:
        return problem(STATUS, str(error), "mend --target-status, or what answers it: 200 is wanted")
    return ok(STATUS, "the target answers 200 to --target-status")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one handshake went: whom we admitted, what was shown, what went wrong."""

    admitted: Admitted | None
    shown: Shown | None
    failure: TunnelError | None


def _shake_hands(case: Case, credentials: Credentials, generation_config: GenerationConfig) -> Steps[None]:
    we = _name_of(credentials) if case.config.access.is_mutual else ""
    try:
        outcome = _try(case, credentials, generation_config)
    except IdentityError as error:
        yield problem(SERVER, f"{error.reason.value}: {error}", "mend the identity, or the host's name")
        return
    failure, admitted = outcome.failure, outcome.admitted
    if admitted is not None:
        name = str(admitted.peer or "anonymous")
        yield ok(SERVER, f"{case.config.target} is {name}, admitted by {admitted.rule}")
    if failure is not None:
        yield explain_failure(case, failure, outcome.shown, we)
    else:
        yield ok(ADMISSION, f"it takes us as {we}" if we else "it does without our certificate")
    if outcome.shown is not None:
        renewal = "the server should have renewed it: tell its operator"
        yield judge_dates("server-expiry", outcome.shown.span, case.now, renewal)


def _try(case: Case, credentials: Credentials, generation_config: GenerationConfig) -> _Outcome:
    """One handshake as the proxy makes it; raises IdentityError for credentials that no handshake can be made with."""
    paths: list[tuple[bytes, ...]] = []
    ends: list[TlsEnd] = []
    context = build_generation(1, credentials, replace(generation_config, chain_observer=paths.append)).context
    buffers = Buffers()

    def open_end() -> TlsEnd:
        ends.append(context.open_end(buffers, tunnel_settings(case.config).server_name))
        return ends[-1]

    failure: TunnelError | None = None
    try:
        run(check_by_handshake(_way(case), TlsSource(open_end, buffers), case.config.connect_timeout, _REFUSAL))
    except TunnelError as error:
        failure = error
    return _Outcome(ends[-1].admitted if ends else None, read_shown(paths[-1]) if paths else None, failure)


def _name_of(credentials: Credentials) -> str:
    if isinstance(credentials, SvidCredentials):
        return str(credentials.svid.spiffe_id)
    try:
        return str(parse_peer(credentials.chain[0], None)) if credentials.chain else ""
    except PeerDenied:
        return "our certificate"
