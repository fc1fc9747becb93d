"""The client check with a real server: its identity, the admitting rule, or the cause of a failure."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.check_runner import CheckReport, run_check
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import Proxy
from tests.support.workloads import CLIENT, FOREIGNER, SERVER, STRANGER, Workloads
from tunnel.check.finding import Verdict
from tunnel.cli.main import main
from tunnel.errors import TargetError, TargetFault
from tunnel.net.address import SrvName, TcpAddress
from tunnel.net.cached_name import Timed
from tunnel.net.dns import SrvRecord


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workloads, Proxy]]:
    """A server proxy that admits CLIENT and FOREIGNER, in front of an echo."""
    with closing(Workloads(tmp_path_factory.mktemp("served"))) as workloads:
        backend = workloads.enter(Backend(echo))
        yield workloads, workloads.server(backend.target, rules=("--allow-id", CLIENT, "--allow-id", FOREIGNER))


@pytest.fixture
def file_identities(tmp_path: Path) -> Iterator[FileIdentities]:
    with closing(FileIdentities(tmp_path)) as file_identities:
        yield file_identities


def call_by_files(file_identities: FileIdentities, server: Proxy, *flags: str) -> CheckReport:
    return run_check("client", "--listen=127.0.0.1:0", f"--target=localhost:{server.address[1]}", *flags)


def refuse_in_http(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 403 Not here\r\n\r\n")


def call(
    workloads: Workloads, target: str, spiffe_id: str = CLIENT, *flags: str, rules: tuple[str, ...] = ("--verify-id", SERVER)
) -> CheckReport:
    line = ("client", f"--use-workload-api-addr={workloads.sockets[spiffe_id]}", "--listen=127.0.0.1:0", f"--target={target}")
    return run_check(*line, *rules, "--timeout=60s", *flags)


def test_an_expected_server_that_admits_us_is_ok(served: tuple[Workloads, Proxy]) -> None:
    workloads, proxy = served
    report = call(workloads, proxy.target)
    assert report.wrong() == []
    assert report.the("server").detail == f"{proxy.target} is {SERVER}, admitted by id:{SERVER}"
    assert report.the("admission").detail == f"the server admits us as {CLIENT}"
    assert report.the("server-expiry").verdict is Verdict.OK
    assert proxy.wait_for("opening pipe").string.endswith(f"peer={CLIENT} rule=id:{CLIENT}")


def test_a_server_that_no_rule_names_is_named(served: tuple[Workloads, Proxy]) -> None:
    workloads, proxy = served
    report = call(workloads, proxy.target, rules=("--verify-id", STRANGER))
    assert report.wrong() == ["server"]
    assert f"presents a certificate of {SERVER} and is refused: no-matching-rule" in report.the("server").detail
    assert report.the("server").advice == f"if this is the intended server, set --verify-id {SERVER}"


def test_without_any_rule_the_line_is_wrong_and_the_server_is_named(served: tuple[Workloads, Proxy]) -> None:
    workloads, proxy = served
    report = call(workloads, proxy.target, rules=())
    assert report.wrong() == ["command-line", "server"]
    assert "no access rule for the server" in report.the("command-line").detail
    assert f"--verify-id {SERVER}" in report.the("server").advice


def test_a_refusal_by_the_server_is_reported_with_its_name(served: tuple[Workloads, Proxy]) -> None:
    workloads, proxy = served
    report = call(workloads, proxy.target, STRANGER)
    assert report.the("server").verdict is Verdict.OK
    assert report.wrong() == ["admission"]
    assert f"{SERVER} refuses us" in report.the("admission").detail
    assert f"to admit {STRANGER} (--allow-id {STRANGER})" in report.the("admission").advice
    tls12 = call(workloads, proxy.target, STRANGER, "--max-tls-version=TLS1.2")
    assert "admission" in tls12.wrong()


def test_a_server_of_a_trust_domain_without_a_bundle_is_named(served: tuple[Workloads, Proxy]) -> None:
    workloads, proxy = served
    report = call(workloads, proxy.target, FOREIGNER)
    assert "unknown-trust-domain: a.test" in report.the("server").detail
    assert "-federatesWith" in report.the("server").advice
    assert report.all("rule")[0].verdict is Verdict.PROBLEM


def test_a_plain_service_is_distinguished_from_a_server(served: tuple[Workloads, Proxy]) -> None:
    workloads, _proxy = served
    with Backend(lambda sock: sock.sendall(b"220 smtp.example.org ESMTP\r\n")) as plain:
        report = call(workloads, plain.target)
    assert "does not answer with TLS" in report.the("server").detail
    assert "the port of the tunnel server, not of the plain service" in report.the("server").advice
    with Backend(lambda sock: sock.close()) as closing_one:
        assert call(workloads, closing_one.target).wrong() == ["server"]


def test_an_unreachable_target_is_reported_with_its_reason(served: tuple[Workloads, Proxy]) -> None:
    workloads, _proxy = served
    refused = call(workloads, f"127.0.0.1:{free_port()}")
    assert "connection-refused" in refused.the("target").detail
    assert refused.the("server").verdict is Verdict.SKIPPED
    unknown = call(workloads, "nowhere.invalid:8443")
    assert unknown.the("name").verdict is Verdict.PROBLEM
    later = call(workloads, "nowhere.invalid:8443", CLIENT, "--skip-resolve")
    assert later.the("name").verdict is Verdict.WARNING


def test_a_refusal_by_the_proxy_is_reported(served: tuple[Workloads, Proxy]) -> None:
    workloads, proxy = served
    with Backend(refuse_in_http) as outbound:
        found = call(workloads, proxy.target, CLIENT, f"--proxy=http://{outbound.target}").the("server")
        assert found.detail.startswith("refused-by-proxy")
        assert "operator" in found.advice
        odd = call(workloads, proxy.target, CLIENT, f"--proxy=socks5://{outbound.target}").the("server")
        assert "http:// and socks5:// differ" in odd.advice


def test_an_ordinary_tls_server_is_distinguished_from_one_with_an_svid(
    served: tuple[Workloads, Proxy], file_identities: FileIdentities
) -> None:
    workloads, _proxy = served
    ordinary = file_identities.serve(file_identities.enter(Backend(echo)).target)
    report = call(workloads, ordinary.target)
    assert "presents a certificate of localhost and is refused" in report.the("server").detail
    assert "not an SVID" in report.the("server").advice


def test_an_expired_server_certificate_has_advice_on_clocks(file_identities: FileIdentities) -> None:
    now = datetime.now(UTC)
    old = file_identities.pki.leaf("old", dns=("localhost",), start=now - timedelta(hours=3), end=now - timedelta(hours=1))
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, files=old)
    report = call_by_files(file_identities, server, *file_identities.named(file_identities.client_files))
    assert "expired" in report.the("server").detail
    assert "compare the clocks" in report.the("server").advice
    assert report.the("server-expiry").verdict is Verdict.PROBLEM


def test_with_files_the_host_and_our_certificate_are_what_is_judged(file_identities: FileIdentities) -> None:
    server = file_identities.serve(file_identities.enter(Backend(echo)).target)
    assert call_by_files(file_identities, server, *file_identities.named(file_identities.client_files)).wrong() == []
    other = call_by_files(
        file_identities, server, *file_identities.named(file_identities.client_files), "--override-server-name=db.example.org"
    )
    assert "host-name-mismatch" in other.the("server").detail
    assert "--override-server-name" in other.the("server").advice
    strict = file_identities.serve(file_identities.enter(Backend(echo)).target, rules=("--allow-cn=somebody-else",))
    refused = call_by_files(file_identities, strict, *file_identities.named(file_identities.client_files)).the("admission")
    assert "ask the operator of localhost to admit client, and see" in refused.advice
    shy = call_by_files(file_identities, server, f"--cacert={file_identities.pki.cacert}", "--disable-authentication")
    assert "requires a client certificate" in shy.the("admission").advice


def test_a_server_is_asked_whether_its_target_answers_and_no_more(served: tuple[Workloads, Proxy]) -> None:
    workloads, _proxy = served
    report = run_check(
        "server",
        f"--use-workload-api-addr={workloads.sockets[SERVER]}",
        "--allow-id",
        CLIENT,
        "--listen=127.0.0.1:0",
        f"--target=127.0.0.1:{free_port()}",
    )
    assert report.wrong() == ["target"]
    assert report.all("server") == []


def test_a_policy_that_does_not_compile_is_a_problem(served: tuple[Workloads, Proxy], tmp_path: Path) -> None:
    pytest.importorskip("regopy")
    workloads, proxy = served
    policy = tmp_path / "policy.rego"
    flags = ("--verify-policy", str(policy), "--verify-query", "data.policy.allow")
    policy.write_text("package policy\nallow { nonsense(")
    report = call(workloads, proxy.target, rules=flags)
    assert report.the("policy").verdict is Verdict.PROBLEM
    assert report.the("server").verdict is Verdict.SKIPPED
    policy.write_text("package policy\nallow { true }")
    assert call(workloads, proxy.target, rules=flags).wrong() == []


def test_nothing_is_changed_by_a_check(served: tuple[Workloads, Proxy], capsys: pytest.CaptureFixture[str]) -> None:
    workloads, proxy = served
    before = sorted(os.listdir(workloads.directory))
    code = main(
        [
            "check",
            "client",
            f"--use-workload-api-addr={workloads.sockets[CLIENT]}",
            f"--listen=unix:{workloads.directory}/plain.sock",
            f"--target={proxy.target}",
            "--verify-id",
            SERVER,
        ],
        {},
    )
    assert code == 0
    assert capsys.readouterr().out.endswith("no problems\n")
    assert sorted(os.listdir(workloads.directory)) == before


SERVICE = "srv:_echo._tcp.example.org"


def with_records(monkeypatch: pytest.MonkeyPatch, answer: tuple[TcpAddress, ...] | TargetError) -> None:
    def look_up(_name: SrvName, _server: TcpAddress | None) -> Timed[tuple[SrvRecord, ...]]:
        if isinstance(answer, TargetError):
            raise answer
        return Timed(tuple(SrvRecord(address, 1, 1) for address in answer), 1)

    monkeypatch.setattr("tunnel.check.target.look_up_srv", look_up)


def test_each_server_in_srv_records_is_checked(served: tuple[Workloads, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    workloads, proxy = served
    closed = TcpAddress("127.0.0.1", str(free_port()))
    with_records(monkeypatch, (TcpAddress(proxy.address[0], str(proxy.address[1])), closed))
    report = call(workloads, SERVICE)
    assert report.the("name").detail == f"{SERVICE} has 2 SRV records: {proxy.target}, {closed}"
    assert report.all("server")[0].detail == f"{proxy.target} is {SERVER}, admitted by id:{SERVER}"
    assert report.wrong() == ["target"]
    assert f"{closed}: connection refused" in report.all("target")[1].detail


def test_srv_records_that_cannot_be_looked_up_are_a_problem(
    served: tuple[Workloads, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_records(monkeypatch, TargetError(TargetFault.RESOLVE, f"{SERVICE}: there are no SRV records"))
    report = call(served[0], SERVICE)
    assert report.wrong() == ["name"]
    assert report.the("name").detail == f"{SERVICE}: there are no SRV records"


def test_srv_records_without_the_extra_are_a_problem(served: tuple[Workloads, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.resolver", None)
    report = call(served[0], SERVICE)
    assert report.wrong() == ["name"]
    assert "SRV records need dnspython" in report.the("name").detail
