"""One generation's TLS settings, for one role.

Knows which protocol versions, ciphers and options we offer, and builds a context whole; must not know connections after
they are made. A used context cannot be changed, so a rotation builds a new one and swaps one reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from OpenSSL import SSL

from tunnel.authz.authorizer import Admitted
from tunnel.config.model import TlsOptions
from tunnel.errors import IdentityError, IdentityFault, TlsError
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.x509 import PrivateKey
from tunnel.tls.alpn import ACME_PROTOCOL, choose_protocol, offer_protocols
from tunnel.tls.callback import JudgedContext, PeerAuth, install_peer_auth, judge_again
from tunnel.tls.engine import Buffers, TlsEnd
from tunnel.tls.openssl import lib, pointer, raise_certificate_limit, use_chain

# AES-128 first, as Go has it: as strong as P-256 and X25519 are, and a quarter cheaper per byte than AES-256.
_TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_DEFAULT = TlsOptions()
MAX_CERTIFICATE_BYTES = 256 * 1024  # of a Certificate message, in both roles, as in Go's crypto/tls
_RELEASE_BUFFERS = 0x10  # SSL_MODE_RELEASE_BUFFERS: an idle connection keeps no record buffers (SSL_CTX_set_mode(3))


@dataclass(frozen=True, slots=True)
class Presented:
    """The certificates that we show, leaf first, and the key of the leaf."""

    chain: tuple[Certificate, ...]
    private_key: PrivateKey = field(repr=False)


class TlsContext:
    """What every handshake of one generation uses; immutable once made.

    `asked` is what the peer's certificate must stand; or, where none is asked for, the admission that everyone gets. A
    context that knows ACME selects its protocol, and refuses clients that offer others only.
    """

    __slots__ = ("_is_server", "_judged")

    def __init__(
        self,
        presented: Presented | None,
        asked: PeerAuth | Admitted,
        *,
        is_server: bool,
        options: TlsOptions = _DEFAULT,
        knows_acme: bool = False,
    ) -> None:
        context = _new_context(options)
        protocols = tuple(protocol.encode() for protocol in options.protocols)
        callbacks: tuple[object, ...] = ()
        if is_server and (protocols or knows_acme):
            callbacks = (choose_protocol(context, (*protocols, ACME_PROTOCOL) if knows_acme else protocols),)
        elif protocols:
            offer_protocols(context, protocols)
        if presented is not None:
            _present(context, presented)
        if isinstance(asked, PeerAuth):
            self._judged = install_peer_auth(context, asked, *callbacks, is_server=is_server)
        else:
            assert is_server, "a client always asks who the server is"
            self._judged = JudgedContext(context, callbacks, anonymous=asked)
        self._is_server = is_server

    @property
    def is_slow(self) -> bool:
        """Whether a verdict may take time, so that it belongs on a thread."""
        return self._judged.is_slow

    def judge_again(self, end: TlsEnd) -> Admitted:
        """The verdict of this context on the peer of a finished handshake of another one; raises PeerDenied."""
        return judge_again(self._judged, end.peer_certificates())

    def open_end(self, buffers: Buffers, server_name: str = "") -> TlsEnd:
        """A new connection's end in this context's role; a client names the server it wants (SNI)."""
        return TlsEnd(self._judged, buffers, is_server=self._is_server, server_name=server_name)


def _new_context(options: TlsOptions) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if options.is_tls12_the_most:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(options.ciphers.encode())
    context.set_tls13_ciphersuites(_TLS13_SUITES)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    # Never resume: a resumed handshake shows no certificate, so nothing would be verified. Either one of the next two
    # lines alone still resumes in TLS 1.3; the third makes of a foreign ticket a full handshake, not an error.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    raise_certificate_limit(context, MAX_CERTIFICATE_BYTES)
    context.set_session_id(b"never resumed")
    context.set_mode(_RELEASE_BUFFERS)
    lib.SSL_CTX_clear_mode(pointer(context), lib.SSL_MODE_ENABLE_PARTIAL_WRITE)  # one call writes several records
    context.set_verify_depth(0)  # the verdict is ours (tls.callback): OpenSSL is not to look for a path of its own
    return context


def _present(context: SSL.Context, presented: Presented) -> None:
    try:
        use_chain(context, presented.chain[0].der, [one.der for one in presented.chain[1:]])
        context.use_privatekey(presented.private_key)
        context.check_privatekey()
    except (SSL.Error, TlsError) as error:  # OpenSSL does not read all that the other library reads
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, "OpenSSL cannot present this certificate and key") from error
