"""Every answer of an agent has a finding with advice, and every wait has a limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.cert_factory import authority, leaf
from tests.support.check_runner import CheckReport, encode_with_verdict, run_check
from tests.support.plain_backends import free_port
from tests.support.workloads import CLIENT, FOREIGNER, SERVER, Workloads
from tunnel.check.finding import Verdict
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import SVIDS
from tunnel.devapi.publisher import Refusal
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, encode_x509_svid_response

RULE = ("--allow-id", CLIENT)
OTHER = Entry(parse_spiffe_id("spiffe://a.test/other"), hint="internal")


def ask(address: object, *flags: str, rules: tuple[str, ...] = RULE, limit: str = "0.5s", **fields: object) -> CheckReport:
    """Check a server with its identity from this address; its target does not exist, which the tests ignore."""
    line = ("server", f"--use-workload-api-addr={address}", "--listen=127.0.0.1:0", "--target=unix:/nonexistent/target")
    return run_check(*line, *rules, f"--timeout={limit}", *flags, **fields)  # type: ignore[arg-type]


@contextmanager
def foreign_listener(path: Path, answer: bytes) -> Iterator[None]:
    """A listener with another protocol, or without an answer."""
    taken: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                taken[-1].sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for sock in taken:
                sock.close()


def test_an_identity_is_described_completely(workloads: Workloads) -> None:
    report = ask(workloads.sockets[SERVER])
    assert report.wrong() == ["target"]
    assert "1 identity for this process" in report.the("workload-api").detail
    assert report.the("identity").detail == f"{SERVER}, the only one offered"
    assert "59 minutes of 60 minutes left" in report.the("expiry").detail
    assert "EC secp256r1, signed by the authority itself" in report.the("key").detail
    assert "verifies against the bundle of a.test" in report.the("key").detail
    assert report.the("trust-domains").detail == "a.test (1 authority) is our own, no federated trust domain"


def test_the_origin_of_the_address_is_reported(workloads: Workloads) -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": str(workloads.sockets[SERVER])}
    report = run_check("server", "--listen=127.0.0.1:0", "--target=unix:/nonexistent/t", *RULE, environ=environ)
    assert report.the("workload-api-address").detail == f"{workloads.sockets[SERVER]}, from $SPIFFE_ENDPOINT_SOCKET"
    assert "from --use-workload-api-addr" in ask(workloads.sockets[SERVER]).the("workload-api-address").detail


def test_without_an_entry_it_says_which_selectors_would_fit(workloads: Workloads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.identity.wait_notice.NOTICE_DELAY", 0.3)
    workloads.api.withdraw(workloads.sockets[SERVER])
    notices: list[str] = []
    report = ask(workloads.sockets[SERVER], limit="0.5s", on_wait=notices.append)
    found = report.the("workload-api")
    assert "the agent has no identity for this process (PERMISSION_DENIED no identity issued)" in found.detail
    assert "-selector unix:uid:" in found.advice
    assert "takes some seconds" in found.advice
    assert report.the("identity").verdict is Verdict.SKIPPED
    assert notices == ["waiting for an identity, up to 0.5s: PERMISSION_DENIED no identity issued"]
    assert report.the("rule").verdict is Verdict.OK  # the other checks still run
    assert report.the("listen").verdict is Verdict.OK


def test_an_entry_that_is_created_meanwhile_is_used(workloads: Workloads) -> None:
    workloads.api.withdraw(workloads.sockets[SERVER])
    timer = threading.Timer(0.3, workloads.api.restore, [workloads.sockets[SERVER]])
    timer.start()
    assert ask(workloads.sockets[SERVER], limit="60s").wrong() == ["target"]
    timer.join()


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        ("INVALID_ARGUMENT", "security header missing from request", "workload.spiffe.io: true"),
        ("UNIMPLEMENTED", "unknown service SpiffeWorkloadAPI", "this is another API"),
        ("UNAVAILABLE", "workload attestation failed", "healthy agent"),
    ],
)
def test_each_status_has_its_advice(workloads: Workloads, code: str, text: str, advice: str) -> None:
    workloads.api.publish(workloads.sockets[SERVER], SVIDS, Refusal(code, text))
    found = ask(workloads.sockets[SERVER], limit="0.5s").the("workload-api")
    assert code in found.detail
    assert text in found.detail
    assert advice in found.advice


def test_an_answer_that_cannot_be_used_is_quoted(workloads: Workloads) -> None:
    workloads.api.publish(workloads.sockets[SERVER], SVIDS, b"\xff\x00noise")
    assert "the agent's answer is not usable: bad-message" in ask(workloads.sockets[SERVER]).the("workload-api").detail


@pytest.mark.parametrize(("hours", "word"), [(3, "this clock is fast"), (-3, "this clock is slow")])
def test_a_wrong_clock_is_found_out(workloads: Workloads, hours: int, word: str) -> None:
    report = ask(workloads.sockets[SERVER], clock=lambda: time.time() + hours * 3600)
    assert word in report.the("workload-api").advice


def test_an_unreachable_agent_is_not_queried(tmp_path: Path) -> None:
    began = time.monotonic()
    report = ask(f"unix://{tmp_path}/no.sock", limit="60s")
    assert report.wrong() == ["workload-api-socket", "target"]
    assert time.monotonic() - began < 30
    assert "connection refused" in ask(f"tcp://127.0.0.1:{free_port()}").the("workload-api-socket").detail


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "of another protocol"])
def test_another_listener_on_the_socket_is_reported_within_the_limit(tmp_path: Path, answer: bytes) -> None:
    with foreign_listener(tmp_path / "a.sock", answer):
        found = ask(f"unix://{tmp_path}/a.sock").the("workload-api")
    assert found.verdict is Verdict.PROBLEM
    assert "the socket accepts connections" in found.detail


def test_the_selection_among_several_identities_is_reported(workloads: Workloads) -> None:
    place = workloads.sockets[SERVER]
    workloads.api.register(place, OTHER)
    first = ask(place).the("identity")
    assert first.verdict is Verdict.WARNING
    assert first.detail == f"{SERVER}, the first of 2: {SERVER}, {OTHER.spiffe_id} (hint internal)"
    assert f"--spiffe-id {SERVER}" in first.advice
    chosen = ask(place, "--spiffe-hint=internal").the("identity")
    assert chosen.verdict is Verdict.OK
    assert chosen.detail.startswith(f"{OTHER.spiffe_id} (hint internal), selected by --spiffe-hint internal")
    missing = ask(place, "--spiffe-id=spiffe://a.test/db", limit="60s")
    assert missing.the("identity").verdict is Verdict.PROBLEM
    assert "does not offer --spiffe-id spiffe://a.test/db, only" in missing.the("identity").detail


def test_federation_is_reported_with_its_effect_on_a_wide_rule(workloads: Workloads) -> None:
    alone = ask(workloads.sockets[SERVER], rules=("--allow-id", FOREIGNER))
    assert alone.the("rule").verdict is Verdict.PROBLEM
    assert "no bundle" in alone.the("rule").detail
    both = ask(workloads.sockets[SERVER], rules=("--allow-id", FOREIGNER, "--allow-id", CLIENT))
    assert [rule.verdict for rule in both.all("rule")] == [Verdict.WARNING, Verdict.OK]
    workloads.federate()
    wide = ask(workloads.sockets[SERVER], rules=("--allow-all",))
    assert wide.the("trust-domains").detail.endswith("federated: b.test (1 authority)")
    assert wide.the("rule").verdict is Verdict.WARNING
    assert "it admits b.test" in wide.the("rule").detail
    assert ask(workloads.sockets[SERVER], rules=("--allow-id", FOREIGNER)).the("rule").verdict is Verdict.OK


def test_hostile_text_of_an_agent_is_escaped(workloads: Workloads) -> None:
    workloads.api.publish(workloads.sockets[SERVER], SVIDS, Refusal("UNAVAILABLE", "\x1b[2Jgone\nok  all: is well"))
    assert encode_with_verdict(ask(workloads.sockets[SERVER], limit="0.5s").the("workload-api")).isprintable()


def test_an_unusable_authority_and_an_omitted_svid_are_reported(workloads: Workloads) -> None:
    now = datetime.now(UTC)
    dates = {"start": now - timedelta(hours=1), "end": now + timedelta(hours=1)}
    root, partner = authority(**dates), authority("b.test", usage=("crl_sign",), **dates)
    late = leaf("spiffe://a.test/late", issuer=root, start=dates["start"], end=now - timedelta(minutes=1))
    good = leaf(SERVER, issuer=root, **dates)
    svids = [SvidEntry(uri, made.der, made.key_der, root.der) for uri, made in (("spiffe://a.test/late", late), (SERVER, good))]
    message = encode_x509_svid_response(X509SvidResponse(tuple(svids), federated_bundles={"b.test": partner.der}))
    workloads.api.publish(workloads.sockets[SERVER], SVIDS, message)
    seen = [finding.detail for finding in ask(workloads.sockets[SERVER]).findings if finding.verdict is Verdict.WARNING]
    assert any("omitted: " in text and "spiffe://a.test/late" in text and "expired" in text for text in seen)
    assert any(text.startswith("b.test: bad-key-usage: authority 1 of the bundle") for text in seen)
