"""The TLS engine: data arrives unchanged at every split of the stream, and a denied peer gets an alert."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from tests.support.cert_factory import MadeCertificate, key_of
from tests.support.tls_ends import (
    ALERT,
    CLOSE_NOTIFY,
    DATA,
    EARLY,
    HANDSHAKE,
    KEY_UPDATE,
    KEY_UPDATE_ASKING,
    LATE,
    TLS12,
    TLS13,
    USER_CANCELED,
    VERSIONS,
    Identity,
    PublicPeer,
    Side,
    admission,
    admit_all,
    any_hand_made_pair,
    as_public,
    context,
    hand_made_pair,
    identity,
    lasting_authority,
    pair,
    public_context,
    shake_hands,
    split_records,
)
from tunnel.authz.authorizer import Admitted
from tunnel.authz.rules import IdRule
from tunnel.config.model import Access
from tunnel.devapi.authority import Authority
from tunnel.errors import Denial, IdentityError, PeerDenied, TlsError
from tunnel.identity.credentials import SvidCredentials, X509Svid
from tunnel.listener.generation import GenerationConfig, build_generation
from tunnel.pkix.certificate import parse_certificates
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import SvidEntry
from tunnel.tls import openssl
from tunnel.tls.context import TlsContext
from tunnel.tls.openssl import ffi, lib

BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
BOTH_ROLES = pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
PIECE = 64 * 1024


def payload(size: int) -> bytes:
    """Bytes that differ from one place to the next."""
    return bytes(at * 7 + (at >> 8) & 255 for at in range(size))


# -- the handshake


@BOTH_VERSIONS
def test_a_handshake_goes_on_byte_by_byte(version: int) -> None:
    client = Side(context(identity(), admit_all, is_server=False, version=version))
    server = Side(context(identity(), admit_all, is_server=True, version=version))
    flight = client.shake()
    for receiver in (server, client) * 3:
        answers = [receiver.shake(flight[at : at + 1]) for at in range(len(flight))]
        flight = b"".join(answers)
    assert client.is_done
    assert server.is_done
    assert server.open(client.seal(b"there")) == b"there"
    assert client.open(server.seal(b"and back")) == b"and back"


@BOTH_VERSIONS
@pytest.mark.parametrize("cut_flight", [0, 1, 2])
def test_a_flight_is_read_at_every_split(version: int, cut_flight: int) -> None:
    ours = identity(kind="ed25519", root=lasting_authority(key=key_of("ed25519")))  # whose signatures have one length
    client_context = context(ours, admit_all, is_server=False, version=version)
    server_context = context(ours, admit_all, is_server=True, version=version)

    def attempt(cut: int) -> int:
        """A handshake with one of its flights cut; the flight's length."""
        client, server = Side(client_context), Side(server_context)
        flight, length = client.shake(), 0
        for number, receiver in enumerate((server, client, server, client)):
            if number == cut_flight:
                length = len(flight)
                first = receiver.shake(flight[:cut])
                flight = first + receiver.shake(flight[cut:])
            else:
                flight = receiver.shake(flight)
        assert client.is_done, f"cut at {cut}"
        assert server.is_done, f"cut at {cut}"
        return length

    length = attempt(0)
    # Every place in and around the headers of the records, and every seventh of the rest.
    for cut in sorted({*range(1, 12), *range(12, length, 7), *range(length - 12, length)}):
        attempt(cut)


@BOTH_VERSIONS
@pytest.mark.parametrize("middles", [0, 1, 2])
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "ed25519"])
def test_every_key_type_completes_a_handshake(kind: str, middles: int, version: int) -> None:
    root = lasting_authority()
    here = identity("spiffe://a.test/client", kind=kind, middles=middles, root=root)
    there = identity("spiffe://a.test/server", kind=kind, middles=middles, root=root)
    client = Side(context(here, admission(root), is_server=False, version=version))
    server = Side(context(there, admission(root), is_server=True, version=version))
    shake_hands(client, server)
    for side, peer in ((client, "spiffe://a.test/server"), (server, "spiffe://a.test/client")):
        assert side.end.admitted is not None
        assert str(side.end.admitted.peer.spiffe_id) == peer
        assert not side.end.is_resumed()
    assert client.end.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert server.open(client.seal(b"data")) == b"data"


@pytest.mark.parametrize(("name", "seen"), [("db.example", b"db.example"), ("", None)])
def test_a_client_sends_the_server_name(name: str, seen: bytes | None) -> None:
    client = Side(context(identity(), admit_all, is_server=False), name)
    server = PublicPeer(public_context(identity()), is_server=True)
    shake_hands(client, server)
    assert server.connection.get_servername() == seen


def test_an_end_may_outlive_the_context_that_opened_it() -> None:
    """A rotation drops a generation while handshakes of it are under way."""
    client = Side(context(identity(), admit_all, is_server=False))
    server = Side(context(identity(), admit_all, is_server=True))
    flight = client.shake()
    gc.collect()
    flight = server.shake(flight)
    flight = client.shake(flight)
    server.shake(flight)
    assert client.is_done
    assert server.is_done


# -- records


@pytest.fixture(params=VERSIONS.values(), ids=VERSIONS.keys())
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


STREAM = [1, 64, 0, 16384, 3]  # sizes of messages; an empty one can be made in TLS 1.3 by hand only


def stream_of(version: int) -> tuple[Callable[[], tuple[Side, bytes]], bytes, Sequence[int]]:
    """What makes a server and a stream of records for it, the plaintext, and where records end."""
    plain = b"".join(map(payload, STREAM))
    if version == TLS13:

        def make() -> tuple[Side, bytes]:
            server, writer, _reader = hand_made_pair()
            return server, b"".join(writer.write(DATA, payload(size)) for size in STREAM)
    else:

        def make() -> tuple[Side, bytes]:
            client, server = pair(version=version)
            return server, b"".join(client.seal(payload(size)) for size in STREAM if size)

    borders, at = [0], 0
    for record in split_records(make()[1]):
        at += len(record)
        borders.append(at)
    return make, plain, borders


def test_a_stream_is_read_byte_by_byte(version: int) -> None:
    make, plain, borders = stream_of(version)
    server, stream = make()
    got = bytearray()
    for at in range(len(stream)):
        got += server.open(stream[at : at + 1])
        begun = max(border for border in borders if border <= at + 1)
        assert len(server.tail) == at + 1 - begun, "what is no whole record is kept, and nothing else"
    assert bytes(got) == plain


def test_a_stream_is_read_at_every_split(version: int) -> None:
    """One connection for all cuts, since a record is read where it lies and nothing of it is left behind."""
    client, server = pair(version=version)
    sizes = [size for size in STREAM if size != 16384] + [700]
    plain = b"".join(map(payload, sizes))
    borders = [0, *accumulate(len(client.seal(payload(size))) for size in sizes if size)]
    client, server = pair(version=version)
    for cut in range(borders[-1] + 1):
        stream = b"".join(client.seal(payload(size)) for size in sizes if size)
        first = server.open(stream[:cut])
        assert server.end.consumed == max(border for border in borders if border <= cut)
        assert first + server.open(stream[cut:]) == plain, f"cut at {cut}"
        assert not server.tail


def test_a_large_record_is_read_at_every_split(version: int) -> None:
    client, server = pair(version=version)
    message = payload(16384)
    for cut in [*range(1, 30), *range(30, 16384, 1021), *range(16380, 16405)]:
        record = client.seal(message)
        assert server.open(record[:cut]) == b""
        assert server.open(record[cut:]) == message


@pytest.mark.parametrize("size", [1, 64, 4000, 16383, 16384])
def test_a_single_record_is_read_by_open_one(version: int, size: int) -> None:
    client, server = pair(version=version)
    for _ in range(3):
        record = client.seal(payload(size))
        server.buffers.inbox[: len(record)] = record
        assert server.end.open_one(len(record)) == size
        assert bytes(server.buffers.outbox_view[:size]) == payload(size)


def test_open_one_ignores_several_records_and_parts_of_one(version: int) -> None:
    client, server = pair(version=version)
    both = client.seal(b"one") + client.seal(b"two")
    for size in (1, 4, 5, len(both) // 2 - 1, len(both) // 2 + 3, len(both)):
        server.buffers.inbox[: len(both)] = both[:size] + bytes(len(both) - size)
        assert server.end.open_one(size) == 0
    assert server.open(both) == b"onetwo"


def test_two_records_cut_elsewhere_that_add_up_to_two_are_all_read(version: int) -> None:
    client, server = pair(version=version)
    first, second = client.seal(b"a" * 100), client.seal(b"b" * 100)
    assert server.open(first[:50]) == b""
    assert server.open(first[50:] + second[:50]) == b"a" * 100
    assert server.open(second[50:]) == b"b" * 100


NOT_DATA = {
    "key update": (HANDSHAKE, KEY_UPDATE),
    "key update that asks for one": (HANDSHAKE, KEY_UPDATE_ASKING),
    "empty data": (DATA, b""),
}


@pytest.mark.parametrize("what", NOT_DATA)
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
def test_open_records_continues_after_open_one(what: str, we_serve: bool) -> None:
    ours, writer, reader = hand_made_pair(we_serve=we_serve)
    for turn in range(3):
        record = writer.write(*NOT_DATA[what])
        assert ours.open_small(record) == b"", "the record was fed once and is not fed again"
        assert ours.end.consumed == len(record)
        assert ours.end.has_output, "the caller must take the output"
        answer = ours.end.take()
        if what.startswith("key update"):
            writer.update()
        assert ours.open_small(writer.write(DATA, b"turn %d" % turn)) == b"turn %d" % turn
        answer += ours.seal(b"answer")
        contents = []
        for sealed in split_records(answer):
            kind, content = reader.read(sealed)
            contents.append((kind, content))
            if kind == HANDSHAKE:
                reader.update()
        asked = [(HANDSHAKE, KEY_UPDATE)] if what.endswith("asks for one") else []
        assert contents == [*asked, (DATA, b"answer")], "an update that was asked for comes before the next data"


@pytest.mark.parametrize("what", NOT_DATA)
def test_data_right_behind_another_record_is_read_with_it(what: str) -> None:
    ours, writer, _reader = hand_made_pair()
    stream = writer.write(DATA, b"before ") + writer.write(*NOT_DATA[what])
    if what.startswith("key update"):
        writer.update()
    stream += writer.write(DATA, b"behind") + writer.write(*NOT_DATA["empty data"]) + writer.write(DATA, b"!", padding=300)
    assert ours.open(stream) == b"before behind!"
    assert ours.end.consumed == len(stream)


def test_session_tickets_are_not_data() -> None:
    client, server = pair()
    tickets = split_records(client.tail)
    client.tail = b""
    assert tickets, "a server of ours sends what OpenSSL wants to send"
    for ticket in tickets:
        assert client.open_small(ticket) == b""
    assert client.open_small(server.seal(b"data")) == b"data"


def test_close_notify_in_a_single_record_is_an_end(version: int) -> None:
    client, server = pair(version=version)
    assert server.open_small(client.end.close_notify()) == b""
    assert server.end.has_ended


def test_data_in_front_of_close_notify_is_read_and_what_follows_is_not(version: int) -> None:
    client, server = pair(version=version)
    stream = client.seal(b"last words") + client.end.close_notify()
    assert server.open(stream + b"\x17\x03\x03\x00\x20" + bytes(32)) == b"last words"
    assert server.end.has_ended
    assert server.tail == b""


def test_close_notify_ends_one_direction_only(version: int) -> None:
    client, server = pair(version=version)
    assert server.open(client.end.close_notify()) == b""
    assert server.end.has_ended
    assert not client.end.has_ended
    for text in (b"still", b"talking"):
        assert client.open(server.seal(text)) == text
    assert client.open(server.end.close_notify()) == b""
    assert client.end.has_ended


CANCELED = {
    "at once": [USER_CANCELED, CLOSE_NOTIFY],
    "several times": [USER_CANCELED, USER_CANCELED, CLOSE_NOTIFY],
    "with data between": [USER_CANCELED, b"", CLOSE_NOTIFY],
}


@BOTH_ROLES
@pytest.mark.parametrize("alerts", CANCELED.values(), ids=CANCELED)
@pytest.mark.parametrize("is_split", [False, True], ids=["one read", "one read per record"])
def test_close_notify_after_user_canceled_is_an_end(version: int, we_serve: bool, alerts: list[bytes], is_split: bool) -> None:
    """Java 11 to 21 closes so in TLS 1.3."""
    ours, writer, reader = any_hand_made_pair(version, we_serve=we_serve)
    records = [writer.write(DATA, b"last ")]
    records += [writer.write(ALERT, alert) if alert else writer.write(DATA, b"words") for alert in alerts]
    got = b"".join(map(ours.open_small, records)) if is_split else ours.open(b"".join(records))
    assert got == (b"last words" if b"" in alerts else b"last ")
    assert ours.end.has_ended
    assert reader.read(ours.seal(b"answer")) == (DATA, b"answer"), "the other direction goes on"
    assert reader.read(ours.end.close_notify()) == (ALERT, CLOSE_NOTIFY)


@BOTH_ROLES
def test_user_canceled_alone_is_no_end(version: int, we_serve: bool) -> None:
    ours, writer, _reader = any_hand_made_pair(version, we_serve=we_serve)
    assert ours.open_small(writer.write(ALERT, USER_CANCELED)) == b""
    assert not ours.end.has_ended
    assert ours.open(writer.write(DATA, b"more")) == b"more"
    assert not ours.end.has_ended


@BOTH_ROLES
@pytest.mark.parametrize("before", [b"", USER_CANCELED], ids=["alone", "after user_canceled"])
def test_a_fatal_alert_is_no_end_however_often_we_read(version: int, we_serve: bool, before: bytes) -> None:
    """OpenSSL sets the flag of close_notify for it too, and after the first read it has no error to report."""
    ours, writer, _reader = any_hand_made_pair(version, we_serve=we_serve)
    if before:
        ours.open(writer.write(ALERT, before))
    with pytest.raises(TlsError) as failed:
        ours.open(writer.write(ALERT, b"\x02\x50"))
    assert failed.value.alert == 80
    for record in (writer.write(ALERT, CLOSE_NOTIFY), writer.write(DATA, b"more")):
        with pytest.raises(TlsError):
            ours.open(record)
    assert not ours.end.has_ended


def test_a_fatal_alert_of_the_peer_is_named() -> None:
    ours, writer, _reader = hand_made_pair()
    with pytest.raises(TlsError) as failed:
        ours.open(writer.write(ALERT, b"\x02\x31"))
    assert failed.value.alert == 49


def test_a_record_that_was_changed_on_the_way_is_a_failure(version: int) -> None:
    client, server = pair(version=version)
    record = bytearray(client.seal(b"to be changed"))
    record[-1] ^= 1
    with pytest.raises(TlsError) as failed:
        server.open(bytes(record))
    assert failed.value.alert is None
    assert server.end.take(), "the peer is told"


@pytest.mark.parametrize("size", [1, 16384, 16385, 65536, 65537, 262144])
def test_sealed_data_is_decrypted(version: int, size: int) -> None:
    client, server = pair(version=version)
    sealed = client.seal(payload(size))
    assert len(split_records(sealed)) == -(-size // 16384), "records are as large as they may be"
    pieces = [sealed[at : at + PIECE] for at in range(0, len(sealed), PIECE)]
    assert b"".join(map(server.open, pieces)) == payload(size)
    assert server.open(client.seal(b"and on")) == b"and on"


@pytest.mark.parametrize("size", [1, 131_072, 131_073, 262_144])
def test_pieces_of_sealed_data_are_decrypted_and_leave_nothing(version: int, size: int) -> None:
    client, server = pair(version=version)
    for seed in range(2):
        data = random.Random(seed).randbytes(size)
        client.buffers.inbox[:size] = data
        received = b"".join(server.open(bytes(piece)) for piece in client.end.seal_pieces(size))
        assert received == data
        assert client.end.take() == b""


def test_an_inbox_full_of_records_is_opened_at_once(version: int) -> None:
    client, server = pair(version=version)
    stream = b"".join(client.seal(payload(16384)) for _ in range(15))
    assert len(stream) <= len(server.buffers.inbox)
    assert server.open(stream) == payload(16384) * 15


def test_bios_can_be_replaced_between_any_two_records(version: int) -> None:
    client, server = pair(version=version)
    client.open(b"")
    for number in range(20):
        message = payload(1 + number * 900)
        client.end.renew()
        server.end.renew()
        assert server.open(client.seal(message)) == message
        server.end.renew()
        assert client.open(server.seal(message)) == message


def test_bios_can_be_replaced_inside_a_record(version: int) -> None:
    client, server = pair(version=version)
    record = client.seal(b"in two parts")
    server.open(record[:9])
    server.end.renew()
    assert server.open(record[9:]) == b"in two parts"


# -- RFC 5746


def server_hello(extensions: bytes) -> bytes:
    """A record with a ServerHello of TLS 1.2."""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0" + extensions
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


def test_a_tls_1_2_server_without_secure_renegotiation_is_refused() -> None:
    client = Side(context(identity(), admit_all, is_server=False))
    client.shake()
    client.shake(server_hello(b"\0\x05" + b"\xff\x01\0\x01\0"))  # renegotiation_info: the certificate may follow
    client = Side(context(identity(), admit_all, is_server=False))
    client.shake()
    with pytest.raises(TlsError, match="unsafe legacy renegotiation disabled"):
        client.shake(server_hello(b""))


# -- what is no TLS

NO_RECORD = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "PostgreSQL": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "SSLv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(35),
    "PROXY": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
    "a length that no record has": b"\x16\x03\x01\xff\xff",
    "another version": b"\x16\x02\x00\x00\x30",
    "zeros": bytes(64),
    "a type that there is not": b"\x19\x03\x03\x00\x20" + bytes(32),
}


@pytest.mark.parametrize("what", NO_RECORD)
@BOTH_ROLES
def test_in_a_handshake_what_cannot_become_a_record_fails_at_once(what: str, we_serve: bool) -> None:
    side = Side(context(identity(), admit_all, is_server=we_serve))
    if not we_serve:
        side.shake()
    with pytest.raises(TlsError):
        side.shake(NO_RECORD[what])


@BOTH_ROLES
def test_what_is_no_record_fails_once_there_are_the_bytes_of_a_header(we_serve: bool) -> None:
    side = Side(context(identity(), admit_all, is_server=we_serve))
    if not we_serve:
        side.shake()
    side.shake(b"G")
    with pytest.raises(TlsError):
        side.shake(b"ET /")


@pytest.mark.parametrize("what", NO_RECORD)
def test_later_what_cannot_become_a_record_fails_at_once(version: int, what: str) -> None:
    client, server = pair(version=version)
    assert server.open(client.seal(b"good") + NO_RECORD[what]) == b"good", "what came before it is delivered"
    assert isinstance(server.end.failure, TlsError)
    client, server = pair(version=version)
    with pytest.raises(TlsError):
        server.open_small(NO_RECORD[what])


@pytest.mark.parametrize(
    "start", [b"\x16", b"\x16\x03", b"\x16\x03\x01", b"\x16\x03\x01\x01", b"\x16\x03\x01\x48\x00", b"\x15\x03"]
)
def test_what_may_become_a_record_is_waited_for(start: bytes) -> None:
    side = Side(context(identity(), admit_all, is_server=True))
    assert side.shake(start) == b""
    assert side.tail == start
    client, server = pair()
    begun = b"\x17" + start[1:]
    assert server.open(client.seal(b"good") + begun) == b"good"
    assert server.tail == begun


# -- refusals


def stranger_of(reason: str) -> tuple[Identity, Any]:
    """Return a peer with one defect, and the admission that detects it."""
    root, other = lasting_authority(), lasting_authority("b.test")
    early = EARLY + timedelta(days=1)
    match reason:
        case "no rule":
            return identity(root=root), admission(root, rule=IdRule(parse_spiffe_id("spiffe://a.test/other")))
        case "unknown trust domain":
            return identity("spiffe://b.test/w", root=other), admission(root)
        case "unknown authority":
            return identity(root=lasting_authority(key=key_of("p256", 9))), admission(root)
        case "authority of another trust domain":
            return identity(root=other), admission(root, other)
        case "expired":
            return identity(root=root, end=early), admission(root)
        case "expired by our clock alone":
            return identity(root=root, end=LATE - timedelta(days=1)), admission(root, now=LATE)
        case "RSA of 1024 bits":
            return identity(root=root, kind="rsa1024"), admission(root)
        case "for code only":
            return identity(root=root, purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)), admission(root)
        case "two names":
            return identity(root=root, uris=("spiffe://a.test/a", "spiffe://a.test/b")), admission(root)
    raise AssertionError(reason)


REFUSALS = [
    ("no rule", Denial.NO_RULE, "bad certificate"),
    ("unknown trust domain", Denial.UNKNOWN_TRUST_DOMAIN, "unknown ca"),
    ("unknown authority", Denial.UNKNOWN_AUTHORITY, "unknown ca"),
    ("authority of another trust domain", Denial.UNKNOWN_AUTHORITY, "unknown ca"),
    ("expired", Denial.EXPIRED, "certificate expired"),
    ("expired by our clock alone", Denial.EXPIRED, "certificate expired"),
    ("RSA of 1024 bits", Denial.WEAK_KEY, "bad certificate"),
    ("for code only", Denial.EXTENDED_KEY_USAGE, "bad certificate"),
    ("two names", Denial.URI_SAN, "bad certificate"),
]


@BOTH_ROLES
@pytest.mark.parametrize(("why", "reason", "alert"), REFUSALS, ids=[why for why, *_ in REFUSALS])
def test_a_denied_peer_gets_an_alert_inside_the_handshake(
    version: int, we_serve: bool, why: str, reason: Denial, alert: str
) -> None:
    stranger, by = stranger_of(why)
    ours = Side(context(identity(root=stranger.root), by, is_server=we_serve, version=version))
    peer = PublicPeer(public_context(stranger, version=version), is_server=not we_serve)
    with pytest.raises(PeerDenied) as refused:
        shake_hands(*((peer, ours) if we_serve else (ours, peer)))
    assert refused.value.reason is reason
    assert ours.end.admitted is None
    final_data = ours.end.take()
    assert final_data
    peer.shake(final_data)
    # A client's refusals all have one alert, as Go's have; a server's say more.
    assert peer.error.endswith(alert if we_serve else "bad certificate")


@pytest.mark.parametrize(
    ("version", "alert"), [(TLS12, "handshake failure"), (TLS13, "certificate required")], ids=["tls12", "tls13"]
)
def test_a_client_without_a_certificate_gets_an_alert(version: int, alert: str) -> None:
    server = Side(context(identity(), admit_all, is_server=True, version=version))
    client = PublicPeer(public_context(version=version), is_server=False)
    with pytest.raises(PeerDenied) as denied:
        shake_hands(client, server)
    assert denied.value.reason is Denial.NO_CERTIFICATE
    assert server.end.admitted is None
    client.shake(server.end.take())
    assert client.error.endswith(alert)


@BOTH_ROLES
def test_an_exception_in_the_admission_fails_the_handshake_and_is_raised_from_it(version: int, we_serve: bool) -> None:
    def confused(_digest: bytes, _path: Callable[[], tuple[bytes, ...]], _source: str) -> Admitted:
        raise RuntimeError("a bug")

    ours = Side(context(identity(), confused, is_server=we_serve, version=version))
    peer = PublicPeer(public_context(identity(), version=version), is_server=not we_serve)
    with pytest.raises(RuntimeError, match="a bug"):
        shake_hands(*((peer, ours) if we_serve else (ours, peer)))
    assert ours.end.admitted is None
    peer.shake(ours.end.take())
    assert peer.error


# -- no resumption, no renegotiation


@pytest.mark.parametrize("is_later", [False, True], ids=["same generation", "later generation"])
def test_no_session_is_resumed(version: int, is_later: bool) -> None:
    verdicts: list[bytes] = []

    def count(digest: bytes, path: Callable[[], tuple[bytes, ...]], source: str) -> Admitted:
        verdicts.append(digest)
        return admit_all(digest, path)

    who = identity()
    serving, foreign = context(who, count, is_server=True, version=version), public_context(identity(), version=version)
    session = None
    for number in range(1, 4):
        if is_later:
            serving = context(who, count, is_server=True, version=version)
        client, server = PublicPeer(foreign, is_server=False, session=session), Side(serving)
        shake_hands(client, server)
        assert client.open(server.seal(b"with the tickets in front")) == b"with the tickets in front"
        assert not server.end.is_resumed()
        assert server.end.admitted is not None
        assert len(verdicts) == number, "a verdict each time"
        session = client.connection.get_session()
        assert session is not None


def test_a_ticket_of_another_server_is_a_full_handshake_and_no_error(version: int) -> None:
    """A target that gives tickets out is replaced by us."""
    generous = public_context(identity(), version=version)
    generous.set_session_id(b"another")
    foreign = public_context(identity(), version=version)
    client, server = PublicPeer(foreign, is_server=False), PublicPeer(generous, is_server=True)
    shake_hands(client, server)
    client.open(server.seal(b"tickets in front"))
    session = client.connection.get_session()
    client = PublicPeer(foreign, is_server=False, session=session)
    ours = Side(context(identity(), admit_all, is_server=True, version=version))
    shake_hands(client, ours)
    assert not ours.end.is_resumed()
    assert ours.end.admitted is not None
    assert client.open(ours.seal(b"data")) == b"data"


def test_our_client_resumes_no_session(version: int) -> None:
    generous, ours = (
        public_context(identity(), version=version),
        context(identity(), admit_all, is_server=False, version=version),
    )
    generous.set_session_id(b"generous")
    for _ in range(3):
        client, server = Side(ours), PublicPeer(generous, is_server=True)
        shake_hands(client, server)
        assert client.open(server.seal(b"data")) == b"data"
        assert not client.end.is_resumed()
        assert client.end.admitted is not None


@BOTH_ROLES
def test_a_peer_cannot_change_identity_on_an_open_connection(we_serve: bool) -> None:
    """TLS 1.2 can renegotiate, in which a peer could show another certificate."""
    root = lasting_authority()
    ours = Side(context(identity(root=root), admission(root), is_server=we_serve, version=TLS12))
    peer = PublicPeer(public_context(identity("spiffe://a.test/first", root=root), version=TLS12), is_server=not we_serve)
    shake_hands(*((peer, ours) if we_serve else (ours, peer)))
    admitted = ours.end.admitted
    another = identity("spiffe://a.test/second", root=root)
    peer.connection.use_certificate(another.leaf.built)
    peer.connection.use_privatekey(another.leaf.key)
    peer.connection.renegotiate()
    asked = peer.shake_again()
    assert asked, "the peer asks for a new handshake"
    try:
        ours.open(asked)
    except TlsError:
        pass
    else:
        answer = ours.end.take()
        assert all(record[0] == ALERT for record in split_records(answer)), "no handshake goes on"
    assert ours.end.admitted is admitted
    assert str(ours.end.admitted.peer.spiffe_id) == "spiffe://a.test/first"  # type: ignore[union-attr]


# -- two trust domains


def test_authorities_of_one_name_in_two_trust_domains_work_side_by_side(version: int) -> None:
    """SPIRE names its authorities alike by default."""
    ours = lasting_authority("a.test", subject="one name", key=key_of("p256", 1))
    theirs = lasting_authority("b.test", subject="one name", key=key_of("p256", 2))
    serving = context(identity(root=ours), admission(ours, theirs), is_server=True, version=version)

    def meet(who: Identity) -> Denial | str:
        server, client = Side(serving), Side(context(who, admit_all, is_server=False, version=version))
        try:
            shake_hands(client, server)
        except PeerDenied as refusal:
            assert server.end.admitted is None
            return refusal.reason
        assert server.end.admitted is not None
        return str(server.end.admitted.peer.spiffe_id)

    good_a, good_b = identity("spiffe://a.test/w", root=ours), identity("spiffe://b.test/w", root=theirs)
    forged_a, forged_b = identity("spiffe://a.test/w", root=theirs), identity("spiffe://b.test/w", root=ours)
    for _ in range(3):  # once before a verdict is remembered, then after
        assert meet(good_a) == "spiffe://a.test/w"
        assert meet(forged_b) in {Denial.UNKNOWN_AUTHORITY, Denial.BAD_PATH}
        assert meet(good_b) == "spiffe://b.test/w"
        assert meet(forged_a) in {Denial.UNKNOWN_AUTHORITY, Denial.BAD_PATH}


# -- one connection and another


def test_the_failure_of_one_connection_is_no_failure_of_another(version: int) -> None:
    """OpenSSL has one queue of errors a thread, and takes a stale entry for the reason of whatever comes next."""
    client, server = pair(version=version)
    failing = context(identity(), admission(lasting_authority()), is_server=True, version=version)
    for number in range(4):
        good = client.seal(b"good %d" % number)
        server.open(good[:7])
        with pytest.raises(TlsError):
            Side(failing).shake(b"GET / HTTP/1.1\r\n")
        bad_client, bad_server = pair(version=version)
        assert bad_server.open(bad_client.seal(b"x") + NO_RECORD["HTTP"]) == b"x"
        assert bad_server.end.failure is not None
        stranger = Side(context(identity(root=lasting_authority(key=key_of("p256", 5))), admit_all, is_server=False))
        with pytest.raises(PeerDenied):
            shake_hands(stranger, Side(failing))
        bad_client.end.close_notify()
        assert server.open(good[7:]) == b"good %d" % number
        assert client.open(server.seal(b"fine")) == b"fine"


def test_a_handshake_that_fails_between_two_flights_of_another_does_not_fail_it(version: int) -> None:
    serving = context(identity(), admit_all, is_server=True, version=version)
    client, server = Side(context(identity(), admit_all, is_server=False, version=version)), Side(serving)

    def fail() -> None:
        with pytest.raises(TlsError):
            Side(serving).shake(NO_RECORD["SSLv2"])

    flight = client.shake()
    fail()
    flight = server.shake(flight)
    fail()
    flight = client.shake(flight)
    fail()
    flight = server.shake(flight)
    fail()
    client.shake(flight)
    assert client.is_done
    assert server.is_done


def test_an_end_can_be_freed_twice() -> None:
    client, _server = pair()
    client.end.free()
    client.end.free()


# -- secrets


def test_no_value_shows_a_key() -> None:
    domain, moment = TrustDomain("a.test"), EARLY
    issued = Authority(domain, now=moment, ttl=timedelta(days=9999)).issue(
        parse_spiffe_id("spiffe://a.test/w"), now=moment, ttl=timedelta(days=9999)
    )
    svid = X509Svid(
        issued.spiffe_id, "", parse_certificates(issued.chain_der), issued.private_key, issued.chain[0].not_valid_after_utc
    )
    credentials = SvidCredentials(svid, BundleSet({domain: TrustBundle(domain, ())}))
    generation = build_generation(1, credentials, GenerationConfig(True, Access(())))
    key_der = issued.key_der
    entry = SvidEntry("spiffe://a.test/w", issued.chain_der, key_der, b"", "")
    for value in (issued, svid, credentials, generation, entry):
        shown = repr(value) + str(value)
        assert "private" not in shown.lower()
        assert repr(key_der)[2:20] not in shown
        assert repr(issued.private_key) not in shown
        assert key_der.hex() not in shown


def test_a_key_that_is_not_the_certificates_cannot_be_presented() -> None:
    who = identity()
    mixed = Identity(MadeCertificate(who.leaf.built, key_of("p384")), (), who.root)
    with pytest.raises(IdentityError):
        context(mixed, admit_all, is_server=True)
    pair()  # and leaves no error behind


# -- what the hello of a client says


@BOTH_VERSIONS
@pytest.mark.parametrize("name", ["", "db.example", "DB"])
def test_both_ends_know_the_server_name(name: str, version: int) -> None:
    client = Side(context(identity(), admit_all, is_server=False, version=version), name)
    server = Side(context(identity(), admit_all, is_server=True, version=version))
    shake_hands(client, server)
    assert (client.end.server_name(), server.end.server_name()) == (name.encode(), name.encode())


@BOTH_VERSIONS
@pytest.mark.parametrize(("offered", "agreed"), [([b"h2"], b"h2"), ([b"http/1.1", b"h2"], b"h2"), ([b"x"], b""), ([], b"")])
def test_both_ends_know_the_negotiated_protocol(offered: list[bytes], agreed: bytes, version: int) -> None:
    made = context(identity(), admit_all, is_server=False, version=version)
    if offered:
        as_public(made).set_alpn_protos(offered)
    foreign = public_context(identity())
    foreign.set_alpn_select_callback(lambda _connection, names: b"h2" if b"h2" in names else SSL.NO_OVERLAPPING_PROTOCOLS)
    client = Side(made)
    shake_hands(client, PublicPeer(foreign, is_server=True))
    assert client.end.alpn() == agreed


# -- memory of an open connection


def peer_certificates(side: Side) -> int:
    """Return how many certificates of the peer OpenSSL keeps."""
    ssl = side.end._ssl
    leaf = lib.SSL_get_peer_certificate(ssl)
    lib.X509_free(leaf)
    lists = (lib.SSL_get_peer_cert_chain(ssl), lib.SSL_get0_verified_chain(ssl))
    return (leaf != ffi.NULL) + sum(lib.sk_X509_num(one) for one in lists if one != ffi.NULL)


@BOTH_VERSIONS
def test_the_certificates_of_the_peer_are_freed_after_the_handshake(version: int) -> None:
    for _ in range(20):  # a reference too few would end the process
        client, server = pair(version=version, client=identity(middles=2), server=identity(middles=1))
        for side in (client, server):
            assert peer_certificates(side)
            side.end.end_handshake()
            assert peer_certificates(side) == 0
            side.end.end_handshake()
        assert client.open(server.seal(b"there")) == b"there"
        assert server.open(client.seal(b"and back")) == b"and back"


def test_an_anonymous_client_has_no_certificates_to_free() -> None:
    server = Side(TlsContext(None, Admitted(None, "disable-authentication"), is_server=True))
    server.end.end_handshake()
    assert peer_certificates(server) == 0


@pytest.mark.parametrize("unknown", [{"_IS_LIST_KNOWN": False}, {"_PEER_AT": [0]}, {"_PEER_AT": [], "_SESSION_WORDS": 2}])
def test_nothing_is_freed_in_an_openssl_of_unknown_layout(unknown: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in unknown.items():
        monkeypatch.setattr(openssl, name, value)
    client, server = pair()
    before = peer_certificates(server)
    server.end.end_handshake()
    assert peer_certificates(server) == before
    assert server.open(client.seal(b"still here")) == b"still here"
