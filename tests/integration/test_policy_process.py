"""A Rego policy decides inside the handshake, in both roles; however slow or greedy it is, nothing else notices."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import Proxy
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import CLIENT, FOREIGNER, SERVER, STRANGER, Workloads

pytest.importorskip("regopy")

from tunnel.policy.policy import _START_TIMEOUT

QUERY = "data.policy.allow"
NAMED = 'named { input.certificate.URIs[_].Path == "/%s" }\n'
NEVER_ENDS = "r := numbers.range(1, 3000)\nslow { a := r[_]; b := r[_]; c := r[_]; a + b + c < 0 }\n"
EATS = "slow { x := [y | y := numbers.range(1, 50000000)[_]]; count(x) > 0 }\n"
ONLY_NAMED = "allow { named }\n"
UNLESS_NAMED = "allow { not named }\nallow { named; slow }\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.rego"


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend(echo) as running:
        yield running


def write(path: Path, *rules: str) -> None:
    """The file, replaced at once as a deployment would."""
    fresh = path.with_suffix(".new")
    fresh.write_text("package policy\n" + "".join(rules))
    fresh.rename(path)


def path_of(spiffe_id: str) -> str:
    return spiffe_id.rpartition("/")[2]


def allowing(path: Path, verb: str = "allow") -> tuple[str, ...]:
    return (f"--{verb}-policy={path}", f"--{verb}-query={QUERY}")


def ask_status(path: Path) -> dict[str, object]:
    """The status document, from a Unix socket."""
    with connect(str(path)) as sock:
        sock.sendall(b"GET /_status HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    found: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def is_refused(workloads: Workloads, proxy: Proxy, who: str) -> bool:
    try:
        with tls_connection(proxy.address, workloads.identity(who)) as peer:
            peer.send(b"x")
            return peer.receive() == b""
    except (SSL.Error, OSError):
        return True


def has_echo(peer: TlsPeer) -> bool:
    peer.send(b"ping")
    return peer.receive_exactly(4) == b"ping"


def reload(proxy: Proxy) -> None:
    since = len(proxy.lines)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for("reloading configuration complete", since)


def test_a_server_asks_inside_the_handshake(workloads: Workloads, backend: Backend, policy: Path) -> None:
    write(policy, NAMED % path_of(CLIENT), ONLY_NAMED)
    server = workloads.server(backend.target, rules=allowing(policy))
    with tls_connection(server.address, workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
    assert is_refused(workloads, server, STRANGER)
    server.wait_for("error on TLS handshake from .*no-matching-rule: unauthorized")
    assert backend.accepted == 1, "nothing is dialled for whom the policy refuses"


def test_a_client_asks_before_its_last_flight_leaves(workloads: Workloads, backend: Backend, policy: Path) -> None:
    write(policy, NAMED % "nobody", ONLY_NAMED)
    server = workloads.server(backend.target)
    client = workloads.client(server.target, rules=allowing(policy, "verify"))
    with connect(client.address) as sock, suppress(ConnectionError):
        assert sock.recv(1) == b""
    client.wait_for("error on dial: .*no-matching-rule: unauthorized")
    server.wait_for("error on TLS handshake from .*bad certificate")
    assert backend.accepted == 0


def test_policies_speak_of_our_own_trust_domain_only(workloads: Workloads, backend: Backend, policy: Path) -> None:
    workloads.federate()
    write(policy, "allow { true }\n")
    server = workloads.server(backend.target, rules=allowing(policy))
    server.wait_for("warning: --allow-policy names no trust domain")
    with tls_connection(server.address, workloads.identity(STRANGER)) as peer:
        assert has_echo(peer)
    assert is_refused(workloads, server, FOREIGNER)


@pytest.mark.parametrize("rules", [NEVER_ENDS, EATS], ids=["never-ends", "eats-memory"])
def test_traffic_and_status_do_not_notice_a_policy_that(
    workloads: Workloads, backend: Backend, policy: Path, tmp_path: Path, rules: str
) -> None:
    write(policy, NAMED % path_of(STRANGER), UNLESS_NAMED, rules)
    status = tmp_path / "status"
    server = workloads.server(backend.target, f"--status=unix:{status}", "--connect-timeout=3s", rules=allowing(policy))
    with ExitStack() as stack:
        peer = stack.enter_context(tls_connection(server.address, workloads.identity(CLIENT)))
        stuck = [stack.enter_context(connect(server.address)) for _ in range(4)]
        wrong_local_user = [TlsPeer(sock, workloads.identity(STRANGER)) for sock in stuck]
        for stranger in wrong_local_user:
            stranger.shake_hands()  # a client of TLS 1.3 is done before the server has judged it
        while not server.matches("unauthorized: policy returned error|handshake-timeout"):
            assert has_echo(peer)
            assert ask_status(status)["ok"] is True
        assert len(server.matches("opening pipe")) == 1, "who waits for the policy has reached nothing"
        write(policy, "allow { true }\n")
        reload(server)
        with tls_connection(server.address, workloads.identity(STRANGER)) as admitted:
            assert has_echo(admitted)
        assert has_echo(peer)


def test_a_connected_peer_that_a_reloaded_policy_denies_is_cut(workloads: Workloads, backend: Backend, policy: Path) -> None:
    write(policy, "allow { true }\n")
    server = workloads.server(backend.target, rules=allowing(policy))
    with (
        tls_connection(server.address, workloads.identity(CLIENT)) as peer,
        tls_connection(server.address, workloads.identity(STRANGER)) as neighbour,
    ):
        assert has_echo(peer)
        assert has_echo(neighbour)
        write(policy, NAMED % path_of(STRANGER), ONLY_NAMED)
        reload(server)
        server.wait_for(f"closing connection: .* peer={CLIENT} rule=policy:.* reason=no-matching-rule$")
        assert has_echo(neighbour)
        with pytest.raises(OSError, match="reset"):
            peer.receive()


def test_a_bad_policy_at_start_is_fatal(workloads: Workloads, backend: Backend, policy: Path) -> None:
    write(policy, "allow { this is no rego }\n")
    server = workloads.server(backend.target, rules=allowing(policy))
    assert server.exit_code() == 1
    assert server.reason().startswith("error: Invalid rego policy or query: ")


def test_a_bad_policy_at_reload_keeps_the_old_one_and_says_so(
    workloads: Workloads, backend: Backend, policy: Path, tmp_path: Path
) -> None:
    write(policy, NAMED % path_of(CLIENT), ONLY_NAMED)
    status = tmp_path / "status"
    server = workloads.server(backend.target, f"--status=unix:{status}", rules=allowing(policy))
    assert server.address
    write(policy, "allow { this is no rego }\n")
    reload(server)
    server.wait_for("error reloading OPA policy: .*; keeping the previous configuration")
    document = ask_status(status)
    assert str(document["policy_reload"]).startswith("failed: Invalid rego policy or query")
    assert document["certificate_reload"] == "ok"
    with tls_connection(server.address, workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
    assert is_refused(workloads, server, STRANGER)


def test_a_policy_admits_beside_other_rules(workloads: Workloads, backend: Backend, policy: Path) -> None:
    write(policy, NAMED % path_of(STRANGER), ONLY_NAMED)
    server = workloads.server(backend.target, rules=("--allow-id", CLIENT, *allowing(policy)))
    for who in (CLIENT, STRANGER):
        with tls_connection(server.address, workloads.identity(who)) as peer:
            assert has_echo(peer)
    assert is_refused(workloads, server, SERVER)


@pytest.mark.parametrize("when", ["start", "reload"])
def test_a_policy_that_takes_long_to_compile_delays_no_end(
    workloads: Workloads, backend: Backend, policy: Path, when: str
) -> None:
    long = "".join(f'allow {{ input.certificate.DNSNames[_] == "d{number}" }}\n' for number in range(20_000))
    write(policy, "allow { true }\n" if when == "reload" else long)
    server = workloads.server(backend.target, "--shutdown-timeout=1s", rules=allowing(policy))
    if when == "reload":
        assert server.address
        write(policy, long)
        server.signal(signal.SIGHUP)
        server.wait_for("received hangup")
    else:
        server.wait_for("using target address")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < _START_TIMEOUT / 2
