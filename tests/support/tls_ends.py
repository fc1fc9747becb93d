"""Both ends of a TLS connection in memory: ours, and peers through pyOpenSSL's public calls or by hand."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from tests.support.cert_factory import NOW, MadeCertificate, authority, key_of, leaf
from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.peer import Peer
from tunnel.authz.rules import AnyRule, Rule
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.engine import TlsEnd
from tunnel.tls.peer_auth import Admit, PeerAuth
from tunnel.tls.records import Buffers
from tunnel.tls.verify import SpiffeVerifier

# OpenSSL reads the clock on the wall inside a handshake, so what is to be good must be good whenever the tests run.
EARLY, LATE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
VERSIONS = {"tls12": TLS12, "tls13": TLS13}
_PIECE = 128 * 1024  # half of an inbox
_TLS12_SUITE = b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"


@dataclass(frozen=True)
class Identity:
    """A leaf with its intermediates, and the authority on top."""

    leaf: MadeCertificate
    middles: tuple[MadeCertificate, ...]
    root: MadeCertificate

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return tuple(one.certificate for one in (self.leaf, *self.middles))


def lasting_authority(domain: str = "a.test", **fields: Any) -> MadeCertificate:
    """An authority that is good today."""
    return authority(domain, **{"start": EARLY, "end": LATE, "key": key_of("p256", 7)} | fields)


def identity(
    uri: str = "spiffe://a.test/w", *, kind: str = "p256", middles: int = 0, root: MadeCertificate | None = None, **fields: Any
) -> Identity:
    """An identity that is good today, under a new authority unless one is given."""
    domain = uri.removeprefix("spiffe://").partition("/")[0]
    top = issuer = root or lasting_authority(domain)
    between: list[MadeCertificate] = []
    for number in range(middles):
        issuer = lasting_authority(domain, issuer=issuer, subject=f"middle {number}", key=key_of("p256", number))
        between.insert(0, issuer)
    told = {"start": EARLY, "end": LATE, "key": key_of(kind)} | fields
    return Identity(leaf(uri, issuer=issuer, **told), tuple(between), top)


def admit_all(_digest: bytes, _path: Callable[[], tuple[bytes, ...]], _source: str = "") -> Admitted:
    """Admit every certificate as the same peer."""
    return Admitted(Peer("", parse_spiffe_id("spiffe://a.test/anyone")), "any")


def admission(*trusted: MadeCertificate, rule: Rule = AnyRule(), own: str = "a.test", now: datetime = NOW) -> PeerAdmission:  # noqa: B008
    """Return the admission that a proxy uses, with bundles for the authorities' trust domains."""
    bundles: dict[TrustDomain, TrustBundle] = {}
    for anchor in trusted:
        names = anchor.built.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        domain = parse_spiffe_id(names.get_values_for_type(x509.UniformResourceIdentifier)[0] + "/x").trust_domain
        held = bundles[domain].authorities if domain in bundles else ()
        bundles[domain] = TrustBundle(domain, (*held, anchor.certificate))
    return PeerAdmission(SpiffeVerifier(BundleSet(bundles)), Authorizer((rule,), TrustDomain(own)), now.timestamp)


def context(who: Identity, by: Admit, *, is_server: bool, version: int = TLS13) -> TlsContext:
    """A context of ours that goes up to a version."""
    made = TlsContext(Presented(who.chain, who.leaf.key), PeerAuth(by), is_server=is_server)
    as_public(made).set_max_proto_version(version)
    return made


def as_public(made: TlsContext) -> SSL.Context:
    """A context of ours with pyOpenSSL's public calls."""
    public = SSL.Context(SSL.TLS_METHOD)
    public._context = made._peer_auth.context
    return public


class Side:
    """One end of ours with buffers of its own, fed as the relay feeds it."""

    def __init__(self, made: TlsContext, server_name: str = "") -> None:
        self.buffers = Buffers()
        self.is_server = made._is_server
        self.end: TlsEnd = made.open_end(self.buffers, server_name)
        self.tail = b""
        self.is_done = False

    def _put(self, data: bytes) -> int:
        data = self.tail + data
        self.buffers.inbox[: len(data)] = data
        return len(data)

    def _taken(self, got: int, size: int) -> bytes:
        """What a read has found; raises the failure when it has found nothing before it."""
        self.tail = bytes(self.buffers.inbox[self.end.consumed : size])
        if self.end.failure is not None and not got:
            raise self.end.failure
        return bytes(self.buffers.outbox_view[:got])

    def shake(self, data: bytes = b"") -> bytes:
        """Take a flight or a part of one; the answer to send."""
        if self.is_done:
            self.tail += data
            return b""
        for at in range(0, max(len(data), 1), _PIECE):
            size = self._put(data[at : at + _PIECE])
            self.is_done = self.end.handshake(size)
            self.tail = bytes(self.buffers.inbox[self.end.consumed : size])
        return self.end.take()

    def seal(self, data: bytes) -> bytes:
        """The records that hold `data`."""
        self.buffers.inbox[: len(data)] = data
        return bytes(self.buffers.outbox_view[: self.end.seal(len(data))])

    def open(self, data: bytes) -> bytes:
        """The plaintext of what is whole now."""
        return b"".join(self._open_piece(data[at : at + _PIECE]) for at in range(0, max(len(data), 1), _PIECE))

    def _open_piece(self, data: bytes) -> bytes:
        size = self._put(data)
        opened = self._taken(self.end.open_records(size), size)
        while self.end.has_more:
            size = self._put(b"")
            opened += self._taken(self.end.open_records(size), size)
        return opened

    def open_small(self, data: bytes) -> bytes:
        """The same by the short way, as the relay goes it when nothing is held."""
        assert not self.tail
        size = self._put(data)
        got = self.end.open_one(size)
        if got:
            return bytes(self.buffers.outbox_view[:got])
        return self._taken(self.end.open_records(size), size)


class PublicPeer:
    """A peer through pyOpenSSL's public calls, which knows nothing of SPIFFE and takes everyone."""

    def __init__(self, made: SSL.Context, *, is_server: bool, session: SSL.Session | None = None) -> None:
        self.connection = SSL.Connection(made)
        if session is not None:
            self.connection.set_session(session)
        if is_server:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()
        self.is_done = False
        self.error = ""  # what OpenSSL says of the end, such as the alert's name

    def _take(self) -> bytes:
        parts = []
        with suppress(SSL.WantReadError):
            while True:
                parts.append(self.connection.bio_read(65536))
        return b"".join(parts)

    def shake(self, data: bytes = b"") -> bytes:
        """Take a flight; the answer to send."""
        if self.is_done:
            self.open(data)
            return self._take()
        if data:
            self.connection.bio_write(data)
        try:
            self.connection.do_handshake()
            self.is_done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self._file(error)
        return self._take()

    def shake_again(self) -> bytes:
        """Start another handshake after `renegotiate`; the first flight of it."""
        with suppress(SSL.Error):
            self.connection.do_handshake()
        return self._take()

    def seal(self, data: bytes) -> bytes:
        """The records that hold `data`."""
        self.connection.sendall(data)
        return self._take()

    def open(self, data: bytes) -> bytes:
        """The plaintext in `data`; an alert is filed in `error`."""
        if data:
            self.connection.bio_write(data)
        parts = []
        try:
            while True:
                parts.append(self.connection.recv(65536))
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self._file(error)
        return b"".join(parts)

    def _file(self, error: SSL.Error) -> None:
        self.error = error.args[0][0][2] if error.args and error.args[0] else type(error).__name__


def public_context(who: Identity | None = None, *, version: int = TLS13) -> SSL.Context:
    """A context that presents whatever it is told to, however weak, and asks for everyone's certificate."""
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_max_proto_version(version)
    made.set_cipher_list(_TLS12_SUITE + b":@SECLEVEL=0")
    made.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    made.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if who is not None:
        made.use_certificate(who.leaf.built)
        for one in who.middles:
            made.add_extra_chain_cert(one.built)
        made.use_privatekey(who.leaf.key)
    return made


def shake_hands(client: Any, server: Any) -> None:
    """Carry flights between a client and a server until both are done; what comes later stays in a tail."""
    flight = client.shake()
    while not (client.is_done and server.is_done):
        answer = server.shake(flight)
        flight = client.shake(answer)
        assert answer or flight or (client.is_done and server.is_done), "a handshake that does not go on"
    if flight:
        server.shake(flight)


def pair(*, version: int = TLS13, client: Identity | None = None, server: Identity | None = None) -> tuple[Side, Side]:
    """A client and a server of ours that have shaken hands."""
    here = Side(context(client or identity(), admit_all, is_server=False, version=version))
    there = Side(context(server or identity(), admit_all, is_server=True, version=version))
    shake_hands(here, there)
    return here, there


HANDSHAKE, ALERT, DATA = 22, 21, 23
CLOSE_NOTIFY, USER_CANCELED = b"\x01\x00", b"\x01\x5a"  # as warnings, which is how they are sent
KEY_UPDATE, KEY_UPDATE_ASKING = b"\x18\x00\x00\x01\x00", b"\x18\x00\x00\x01\x01"


@dataclass
class Secrets:
    """The traffic secrets of a TLS 1.3 connection, from a key log."""

    by_label: dict[str, bytes] = field(default_factory=dict)

    def listen(self, made: SSL.Context) -> None:
        """File what a context's connections log."""
        made.set_keylog_callback(self._note)

    def _note(self, _connection: SSL.Connection, line: bytes) -> None:
        label, _random, secret = line.decode().split()
        self.by_label[label] = bytes.fromhex(secret)


class HandMade:
    """One direction of a TLS 1.3 connection by hand (RFC 8446, 5.2 and 7.3): any record can be written and read."""

    def __init__(self, secret: bytes, sequence: int = 0) -> None:
        self._secret = secret
        self._sequence = sequence

    def write(self, kind: int, data: bytes, padding: int = 0) -> bytes:
        """One record; after a key update call `update`."""
        inner = data + bytes([kind]) + bytes(padding)
        header = struct.pack("!BHH", DATA, 0x0303, len(inner) + 16)
        return header + AESGCM(self._expand(b"key", 16)).encrypt(self._nonce(), inner, header)

    def read(self, record: bytes) -> tuple[int, bytes]:
        """The inner type and the content of one record."""
        inner = AESGCM(self._expand(b"key", 16)).decrypt(self._nonce(), record[5:], record[:5]).rstrip(b"\0")
        return inner[-1], inner[:-1]

    def update(self) -> None:
        """The next secret of this direction (RFC 8446, 7.2)."""
        self._secret, self._sequence = self._expand(b"traffic upd", 32), 0

    def _nonce(self) -> bytes:
        number = self._sequence.to_bytes(12, "big")
        self._sequence += 1
        return bytes(a ^ b for a, b in zip(self._expand(b"iv", 12), number, strict=True))

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack("!HB", size, len(label)) + label + b"\0"
        return HKDFExpand(hashes.SHA256(), size, info).derive(self._secret)


class HandMade12:
    """One direction of a TLS 1.2 connection by hand, with AES-128-GCM (RFC 5246, 6.2.3.3 and RFC 5288)."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._key, self._iv = key, iv
        self._sequence = 1  # after Finished

    def write(self, kind: int, data: bytes) -> bytes:
        """One record."""
        nonce = self._sequence.to_bytes(8, "big")
        sealed = AESGCM(self._key).encrypt(self._iv + nonce, data, self._bound(kind, len(data)))
        return struct.pack("!BHH", kind, 0x0303, len(nonce + sealed)) + nonce + sealed

    def read(self, record: bytes) -> tuple[int, bytes]:
        """The type and the content of one record."""
        nonce, sealed = record[5:13], record[13:]
        return record[0], AESGCM(self._key).decrypt(self._iv + nonce, sealed, self._bound(record[0], len(sealed) - 16))

    def _bound(self, kind: int, size: int) -> bytes:
        number = self._sequence.to_bytes(8, "big")
        self._sequence += 1
        return number + struct.pack("!BHH", kind, 0x0303, size)


def hand_made_directions_12(connection: SSL.Connection) -> tuple[HandMade12, HandMade12]:
    """What the client and what the server writes from now on (RFC 5246, 6.3)."""
    master, seed = connection.master_key(), b"key expansion" + connection.server_random() + connection.client_random()
    block, link = b"", seed
    while len(block) < 40:
        link = hmac.digest(master, link, hashlib.sha256)
        block += hmac.digest(master, link + seed, hashlib.sha256)
    return HandMade12(block[:16], block[32:36]), HandMade12(block[16:32], block[36:40])


def split_records(data: bytes) -> list[bytes]:
    """The whole records of a stream."""
    records = []
    while data:
        size = 5 + struct.unpack("!H", data[3:5])[0]
        records.append(data[:size])
        data = data[size:]
    return records


def hand_made_pair_12(*, we_serve: bool = True) -> tuple[Side, HandMade12, HandMade12]:
    """As `hand_made_pair`, in TLS 1.2."""
    peer = PublicPeer(public_context(identity(), version=TLS12), is_server=not we_serve)
    ours = Side(context(identity(), admit_all, is_server=we_serve, version=TLS12))
    shake_hands(*((peer, ours) if we_serve else (ours, peer)))
    client, server = hand_made_directions_12(peer.connection)
    return (ours, client, server) if we_serve else (ours, server, client)


def hand_made_pair(*, we_serve: bool = True, who: Identity | None = None) -> tuple[Side, HandMade, HandMade]:
    """Our end after a TLS 1.3 handshake, what writes to it by hand, and what reads from it by hand.

    Nothing has been sent under the application keys but, by a server, the tickets.
    """
    foreign, secrets = public_context(identity()), Secrets()
    secrets.listen(foreign)
    peer = PublicPeer(foreign, is_server=not we_serve)
    ours = Side(context(who or identity(), admit_all, is_server=we_serve))
    client_secret, server_secret = "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"
    if we_serve:
        shake_hands(peer, ours)
        return ours, HandMade(secrets.by_label[client_secret]), HandMade(secrets.by_label[server_secret], 2)
    shake_hands(ours, peer)
    if ours.tail:
        ours.open(b"")
    return ours, HandMade(secrets.by_label[server_secret], 2), HandMade(secrets.by_label[client_secret])


def any_hand_made_pair(version: int, *, we_serve: bool) -> tuple[Side, HandMade | HandMade12, HandMade | HandMade12]:
    """`hand_made_pair` in either version."""
    return hand_made_pair_12(we_serve=we_serve) if version == TLS12 else hand_made_pair(we_serve=we_serve)
