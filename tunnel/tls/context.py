"""The TLS context of one generation in one role: protocol versions, ciphers, options, certificate and peer authentication.

A context in use cannot be changed: a rotation builds a new one and swaps one reference.
"""

from __future__ import annotations

from tunnel.authz.authorizer import Admitted
from tunnel.config.model import TlsOptions
from tunnel.errors import IdentityError, IdentityFault, TlsError
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.x509 import PrivateKey
from tunnel.tls.alpn import ACME_PROTOCOL, offer_protocols, select_protocol
from tunnel.tls.engine import TlsEnd
from tunnel.tls.openssl import Context, lib, new_context, raise_certificate_limit, require, use_chain, use_private_key
from tunnel.tls.peer_auth import PeerAuth, PeerAuthContext, install_peer_auth, readmit
from tunnel.tls.records import Buffers

# AES-128 first, as in Go: it matches the strength of P-256 and X25519, and costs a quarter less per byte than AES-256.
_TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_OPTIONS = lib.SSL_OP_CIPHER_SERVER_PREFERENCE | lib.SSL_OP_NO_RENEGOTIATION | lib.SSL_OP_NO_COMPRESSION
_SESSION_ID = b"never resumed"
_DEFAULT = TlsOptions()
MAX_CERTIFICATE_BYTES = 256 * 1024  # of a Certificate message, in both roles, as in Go's crypto/tls
# We verify (tls.peer_auth). With a depth below -1, which means the default, OpenSSL's path ends at the leaf. With 0 it adds an
# issuer that the peer has sent, and checks a signature after the verdict, which costs a sixth of a handshake.
_NO_PATH = -2
_RELEASE_BUFFERS = 0x10  # SSL_MODE_RELEASE_BUFFERS: an idle connection keeps no record buffers (SSL_CTX_set_mode(3))


@dataclass(frozen=True, slots=True)
class Presented:
    """The certificate chain that we present, leaf first, and the private key of the leaf."""

    chain: tuple[Certificate, ...]
    private_key: PrivateKey | bytes = field(repr=False)  # or PKCS#8 in DER


class TlsContext:
    """Opens the TLS connections of one generation; immutable.

    `peer_auth` authenticates peers; an `Admitted` instead requests no certificate and admits every client. With `accepts_acme`
    a server also selects the protocol `acme-tls/1`.
    """

    __slots__ = ("_is_server", "_peer_auth")

    def __init__(
        self,
        presented: Presented | None,
        peer_auth: PeerAuth | Admitted,
        *,
        is_server: bool,
        options: TlsOptions = _DEFAULT,
        accepts_acme: bool = False,
    ) -> None:
        context = _new_context(options)
        protocols = tuple(protocol.encode() for protocol in options.protocols)
        callbacks: tuple[object, ...] = ()
        if is_server and (protocols or accepts_acme):
            callbacks = (select_protocol(context, (*protocols, ACME_PROTOCOL) if accepts_acme else protocols),)
        elif protocols:
            offer_protocols(context, protocols)
        if presented is not None:
            _present(context, presented)
        if isinstance(peer_auth, PeerAuth):
            self._peer_auth = install_peer_auth(context, peer_auth, *callbacks, is_server=is_server)
        else:
            assert is_server, "a client always authenticates the server"
            self._peer_auth = PeerAuthContext(context, callbacks, anonymous=peer_auth)
        self._is_server = is_server

    @property
    def is_slow(self) -> bool:
        """Whether the handshake may block on a policy, so that it must run on a thread."""
        return self._peer_auth.is_slow

    def readmit(self, end: TlsEnd) -> Admitted:
        """Decide by this context on the peer of a finished handshake of another one; raises PeerDenied."""
        return readmit(self._peer_auth, end.admitted.sent if end.admitted is not None else None, end.source)

    def open_end(self, buffers: Buffers, server_name: str = "", source: str = "") -> TlsEnd:
        """Open our end of a new connection; a client sends `server_name` as SNI.

        `source` is the client that connected to us, as `tcp:HOST:PORT`: access rules can depend on it.
        """
        return TlsEnd(self._peer_auth, buffers, is_server=self._is_server, server_name=server_name, source=source)


def _new_context(options: TlsOptions) -> Context:
    context = new_context()
    require(lib.SSL_CTX_set_min_proto_version(context, lib.TLS1_2_VERSION) == 1)
    if options.is_limited_to_tls12:
        require(lib.SSL_CTX_set_max_proto_version(context, lib.TLS1_2_VERSION) == 1)
    require(lib.SSL_CTX_set_cipher_list(context, options.ciphers.encode()) == 1)
    require(lib.SSL_CTX_set_ciphersuites(context, _TLS13_SUITES) == 1)
    lib.SSL_CTX_set_options(context, _OPTIONS)
    # Never resume: a resumed handshake has no certificate to verify. Either one of the next two lines alone still resumes in
    # TLS 1.3. With a session ID a ticket of another server leads to a full handshake instead of an error.
    lib.SSL_CTX_set_options(context, lib.SSL_OP_NO_TICKET)
    lib.SSL_CTX_set_session_cache_mode(context, lib.SSL_SESS_CACHE_OFF)
    raise_certificate_limit(context, MAX_CERTIFICATE_BYTES)
    require(lib.SSL_CTX_set_session_id_context(context, _SESSION_ID, len(_SESSION_ID)) == 1)
    lib.SSL_CTX_set_mode(context, _RELEASE_BUFFERS)
    lib.SSL_CTX_set_verify_depth(context, _NO_PATH)
    return context


def _present(context: Context, presented: Presented) -> None:
    key = presented.private_key
    try:
        use_chain(context, presented.chain[0].der, [one.der for one in presented.chain[1:]])
        use_private_key(context, key if isinstance(key, bytes) else _encode_key(key))
    except TlsError as error:  # OpenSSL rejects some certificates that `cryptography` accepts
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, "OpenSSL cannot use this certificate and key") from error


def _encode_key(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
