"""Checks whether the target answers: by a connection, and for a client by a handshake as the proxy makes it."""

from __future__ import annotations

from functools import partial

from tunnel.authz.authorizer import Admitted
from tunnel.authz.peer import parse_peer
from tunnel.check.finding import Finding, Steps, Verdict, ok, problem, skipped, warning
from tunnel.check.handshake_failure import ADMISSION, SERVER, PeerClaims, advice_for, explain_failure, read_claims
from tunnel.check.preflight import Preflight, run, within
from tunnel.check.sockets import examine_socket
from tunnel.check.validity import check_validity
from tunnel.errors import ConfigError, IdentityError, PeerDenied, TargetError, TargetFault, TunnelError
from tunnel.http.client import parse_http_url
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.listener.generation import GenerationConfig, build_generation
from tunnel.net.address import Address, SrvName, TcpAddress, UnixAddress
from tunnel.net.dial import open_target, open_through
from tunnel.net.dns import check_dns_support, look_up_srv
from tunnel.net.sockets import port_number, resolve, resolve_now
from tunnel.status.backend_health import OpenStream, check_by_connecting, check_by_handshake, check_by_request
from tunnel.tls.engine import TlsEnd
from tunnel.tls.records import Buffers
from tunnel.tls.stream import TlsSource

TARGET, STATUS = "target", "target-status"
_REFUSAL = 2.0  # seconds for a server to refuse us after our handshake


def examine_target(
    preflight: Preflight, credentials: Credentials | None, generation_config: GenerationConfig | None
) -> Steps[None]:
    """Check whether each target answers; for a client, with a handshake, which needs credentials and generation_config."""
    for target in preflight.config.targets:
        addresses = (yield from _look_up(preflight, target)) if isinstance(target, SrvName) else (target,)
        for address in addresses:
            yield from _examine_address(_with_target(preflight, address), address, credentials, generation_config)


def _with_target(preflight: Preflight, target: Address) -> Preflight:
    """Return the same preflight with one target."""
    process = replace(preflight.line.config, listeners=(replace(preflight.config, targets=(target,)),))
    return replace(preflight, line=replace(preflight.line, config=process))


def _look_up(preflight: Preflight, name: SrvName) -> Steps[tuple[Address, ...]]:
    """Return the addresses in the SRV records of a name."""
    try:
        check_dns_support(name)
        found = within(preflight.config.connect_timeout, partial(look_up_srv, name, preflight.config.resolution.dns_server))
    except ConfigError as error:
        yield problem("name", str(error), "install the extra, or name the hosts and ports instead")
        return ()
    except (TargetError, TimeoutError) as error:
        yield problem("name", str(error), advice_for(TargetFault.RESOLVE))
        return ()
    addresses = tuple(record.address for record in found.value)
    yield ok("name", f"{name} has {len(addresses)} SRV records: {', '.join(map(str, addresses))}")
    return addresses


def _examine_address(
    preflight: Preflight, target: Address, credentials: Credentials | None, generation_config: GenerationConfig | None
) -> Steps[None]:
    config = preflight.config
    is_reached = True  # through a proxy, the handshake decides
    if config.outbound is None:
        is_reached = yield from _examine_connection(preflight, target)
    if config.is_server:
        if config.target_status:
            yield _examine_status(preflight, target)
        return
    if not is_reached:
        yield skipped(SERVER, "the target is not reachable")
    elif credentials is None:
        yield skipped(SERVER, "a handshake needs an identity")
    elif generation_config is None:
        yield skipped(SERVER, "authorization needs the policy")
    else:
        yield from _examine_handshake(preflight, target, credentials, generation_config)


def _stream_opener(preflight: Preflight, target: Address) -> OpenStream:
    outbound = preflight.config.outbound
    if outbound is None or isinstance(target, UnixAddress):
        return partial(open_target, target)
    return lambda: open_through(outbound, target.host, port_number(target.port))


def _examine_connection(preflight: Preflight, target: Address) -> Steps[bool]:
    if isinstance(target, UnixAddress):
        found = examine_socket(TARGET, target.path, "the target service")
    else:
        is_known = yield from _resolve(preflight, target)
        found = _connect(preflight, target) if is_known else skipped(TARGET, "its name cannot be resolved")
    yield found
    return found.verdict in (Verdict.OK, Verdict.WARNING)


def _resolve(preflight: Preflight, target: TcpAddress) -> Steps[bool]:
    if resolve_now(target) is not None:
        return True
    try:
        found = within(preflight.config.connect_timeout, partial(resolve, target))
    except (TargetError, TimeoutError) as error:
        advice = advice_for(TargetFault.RESOLVE)
        if preflight.config.is_resolved_early:
            yield problem("name", str(error), advice)
        else:
            yield warning("name", str(error), f"{advice}; with --skip-resolve the proxy starts anyway")
        return False
    yield ok("name", f"{target.host} resolves to {', '.join(str(endpoint).removeprefix('tcp:') for endpoint in found)}")
    return True


def _connect(preflight: Preflight, target: Address) -> Finding:
    try:
        run(check_by_connecting(_stream_opener(preflight, target), preflight.config.connect_timeout))
    except TargetError as error:
        return problem(TARGET, f"{error.reason.value}: {error}", advice_for(error.reason))
    return ok(TARGET, f"{target} accepts connections")


def _examine_status(preflight: Preflight, target: Address) -> Finding:
    url = preflight.config.target_status
    try:
        open_stream = partial(open_target, target)
        run(check_by_request(open_stream, parse_http_url(url), preflight.config.connect_timeout))
    except (TargetError, ConfigError) as error:
        return problem(STATUS, str(error), "correct --target-status, or the service: expected status 200")
    return ok(STATUS, "the target answers --target-status with 200")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of one handshake: the admitted peer, the claims of its certificate, the failure."""

    admitted: Admitted | None
    claims: PeerClaims | None
    failure: TunnelError | None


def _examine_handshake(
    preflight: Preflight, target: Address, credentials: Credentials, generation_config: GenerationConfig
) -> Steps[None]:
    own_name = _name_of(credentials) if preflight.config.access.is_mutual else ""
    try:
        outcome = _handshake(preflight, target, credentials, generation_config)
    except IdentityError as error:
        yield problem(SERVER, f"{error.reason.value}: {error}", "correct the identity, or the name of the host")
        return
    failure, admitted = outcome.failure, outcome.admitted
    if admitted is not None:
        name = str(admitted.peer or "anonymous")
        yield ok(SERVER, f"{target} is {name}, admitted by {admitted.rule}")
    if failure is not None:
        yield explain_failure(preflight, failure, outcome.claims, own_name)
    else:
        yield ok(ADMISSION, f"the server admits us as {own_name}" if own_name else "the server admits us without a certificate")
    if outcome.claims is not None:
        advice = "the server should have renewed it: inform its operator"
        yield check_validity("server-expiry", outcome.claims.validity, preflight.now, advice)


def _handshake(
    preflight: Preflight, target: Address, credentials: Credentials, generation_config: GenerationConfig
) -> _Outcome:
    """Make one handshake as the proxy does; raises IdentityError if the credentials are not usable."""
    paths: list[tuple[bytes, ...]] = []
    ends: list[TlsEnd] = []
    context = build_generation(1, credentials, replace(generation_config, chain_observer=paths.append)).context
    buffers = Buffers()

    def open_end() -> TlsEnd:
        ends.append(context.open_end(buffers, preflight.config.sni_for(target)))
        return ends[-1]

    failure: TunnelError | None = None
    try:
        run(
            check_by_handshake(
                _stream_opener(preflight, target), TlsSource(open_end, buffers), preflight.config.connect_timeout, _REFUSAL
            )
        )
    except TunnelError as error:
        failure = error
    return _Outcome(ends[-1].admitted if ends else None, read_claims(paths[-1]) if paths else None, failure)


def _name_of(credentials: Credentials) -> str:
    if isinstance(credentials, SvidCredentials):
        return str(credentials.svid.spiffe_id)
    try:
        return str(parse_peer(credentials.chain[0], None)) if credentials.chain else ""
    except PeerDenied:
        return "our certificate"
