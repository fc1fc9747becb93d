"""The one family of errors, each with an enumerated reason.

Knows the reasons and their words, and those of the system's own errors; must not know who raises them or who prints them.
A reason's value is also its word in the log, and the label of a metric, so a value is never renamed without need. Messages
are lower case, say what was seen and what was wanted, end without a full stop and never carry key material.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Any, Generic, TypeVar

Reason = TypeVar("Reason", bound=Enum)


_HIDDEN = "(hidden)"
# What an operator may have put where a name, a path or an address belongs.
_SECRETS = re.compile(
    r"-----BEGIN[^'\"]*"  # PEM
    r"|\beyJ[\w-]{6,}(?:\.[\w-]*)+"  # a token
    r"|\bMI[A-Za-z0-9+/_-]{62}[A-Za-z0-9+/_=-]*"  # DER in base64
    r"|(?<=://)[^'\"\s]*(?=@)|(?<=%3A%2F%2F)[^'\"\s]*(?=%40)"  # credentials of a URL
    r"|(?<![^\s'\"=])(?!(?:unix|systemd|launchd|sha[0-9]+):)[^\s'\"/:]+:[^\s'\"]+(?=@)",  # USER:PASSWORD@HOST
    re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """The text without what looks like a key, a token or a password of a URL."""
    return _SECRETS.sub(_HIDDEN, text)


class TunnelError(Exception):
    """What the program refuses knowingly; everything else that escapes is a bug."""


class ReasonedError(TunnelError, Generic[Reason]):
    """A refusal with an enumerated reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ConfigError(TunnelError):
    """The operator's flags, addresses or environment cannot be used as they stand."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


class CommandError(TunnelError):
    """A command that was to be run cannot be; `exit_code` is a shell's for that."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class IdFault(Enum):
    """Why a text is not a SPIFFE ID (SPIFFE-ID, section 2)."""

    SCHEME = "bad-scheme"
    TRUST_DOMAIN_MISSING = "trust-domain-missing"
    TRUST_DOMAIN_CHARACTER = "bad-trust-domain-character"
    TRUST_DOMAIN_LENGTH = "trust-domain-too-long"
    PATH_SEGMENT = "bad-path-segment"
    PATH_CHARACTER = "bad-path-character"
    LENGTH = "id-too-long"


class SpiffeIdError(ReasonedError[IdFault]):
    """A text that is not a SPIFFE ID or a trust domain name."""

    def __init__(self, reason: IdFault, message: str) -> None:
        super().__init__(reason, hide_secrets(message))


class WireFault(Enum):
    """Why bytes from another process cannot be read."""

    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    NOT_TEXT = "not-text"


class WireError(ReasonedError[WireFault]):
    """Bytes that are not the message they should be."""


class IdentityFault(Enum):
    """Why one update of the Workload API is not taken, or files are not, or why no identity can be had."""

    NO_SVID = "no-svid"
    INCOMPLETE = "mandatory-field-empty"
    BAD_MESSAGE = "bad-message"
    BAD_CERTIFICATE = "bad-certificate"
    BAD_KEY = "bad-key"
    BAD_BUNDLE = "bad-bundle"
    BAD_HOST = "bad-host-name"
    WRONG_ID = "id-differs-from-certificate"
    FILE = "file-unreadable"
    FORMAT = "bad-file-format"
    PASSWORD = "wrong-password"
    OVER_LIMIT = "over-limit"
    UNVERIFIED = "own-svid-does-not-verify"
    REFUSED = "refused-by-agent"
    ACME = "acme-failed"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    CRASHED = "internal-error"


class IdentityError(ReasonedError[IdentityFault]):
    """An identity or a bundle that cannot be used; `begins` is set if it is only not yet valid, and says when it is."""

    def __init__(self, reason: IdentityFault, message: str, begins: datetime | None = None) -> None:
        super().__init__(reason, hide_secrets(message))
        self.begins = begins


class OutputError(TunnelError):
    """Files could not be written as they should be; what was there before is there still."""


class Denial(Enum):
    """Why a certificate or its bearer is not admitted (X509-SVID, sections 2 to 5, and our own rules)."""

    UNREADABLE = "certificate-unreadable"
    NO_CERTIFICATE = "no-certificate"
    URI_SAN = "not-one-uri-san"
    SPIFFE_ID = "bad-spiffe-id"
    ROOT_PATH = "id-without-path"
    LEAF_IS_CA = "leaf-is-ca"
    KEY_USAGE = "bad-key-usage"
    EXTENDED_KEY_USAGE = "bad-extended-key-usage"
    WEAK_KEY = "weak-key"
    WEAK_SIGNATURE = "weak-signature"
    NOT_CA = "issuer-is-not-ca"
    AUTHORITY_ID = "authority-of-another-trust-domain"
    UNKNOWN_TRUST_DOMAIN = "unknown-trust-domain"
    UNKNOWN_AUTHORITY = "unknown-authority"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    BAD_PATH = "bad-certification-path"
    HOST_NAME = "wrong-host-name"
    PIN = "not-pinned"
    NO_RULE = "no-rule-admits"
    POLICY_ERROR = "policy-error"


class PeerDenied(ReasonedError[Denial]):
    """A certificate that breaks a rule, or a peer that no rule admits; `peer` is set once its certificate is verified."""

    def __init__(self, reason: Denial, seen: str) -> None:
        super().__init__(reason, f"{reason.value}: {seen}")
        self.seen = seen
        self.peer: Any = None  # a Peer, whose class is in a higher layer


class WebRefusal(Enum):
    """Why the status port refuses a request."""

    HOST = "foreign-host"  # it names a host that is not ours: DNS rebinding
    CROSS_SITE = "cross-site"  # a page of another site would change something


class TokenFault(Enum):
    """Why a token is not taken for a JWT-SVID (JWT-SVID, sections 2 to 6, and our own limits)."""

    MALFORMED = "not-a-compact-jws"
    TOO_LARGE = "token-too-large"
    ALGORITHM = "bad-algorithm"
    TYPE = "bad-type"
    HEADER = "unknown-header"
    KEY_ID = "bad-key-id"
    SUBJECT = "bad-subject"
    AUDIENCE = "wrong-audience"
    EXPIRY = "bad-expiry"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNKNOWN_TRUST_DOMAIN = "unknown-trust-domain"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "bad-signature"
    REFUSED = "refused-by-agent"


class TokenError(ReasonedError[TokenFault]):
    """A token that proves no SPIFFE ID."""

    def __init__(self, reason: TokenFault, message: str) -> None:
        super().__init__(reason, hide_secrets(message))


class PolicyFault(Enum):
    """Why a Rego policy cannot be used, or gave no answer."""

    NO_ENGINE = "engine-not-installed"
    UNREADABLE = "policy-unreadable"
    OVER_LIMIT = "over-limit"
    INVALID = "policy-invalid"
    EVALUATION = "evaluation-failed"
    TIMEOUT = "timeout"
    ENGINE = "evaluator-gone"


class PolicyError(ReasonedError[PolicyFault]):
    """A policy that cannot be used as it stands, or that has no answer."""

    def __init__(self, reason: PolicyFault, message: str) -> None:
        super().__init__(reason, hide_secrets(message))


class TlsFault(Enum):
    """Why a TLS connection did not come about, or cannot go on, for another cause than the peer's identity."""

    PROTOCOL = "tls-failure"
    REFUSED = "refused-by-peer"
    CLOSED = "closed-in-handshake"
    RESET = "reset-in-handshake"
    TIMEOUT = "handshake-timeout"
    BUSY = "too-many-handshakes"
    NO_DATA = "records-without-data"


class TlsError(ReasonedError[TlsFault]):
    """The TLS connection is over; `alert` is the number that the peer sent, when it was the peer who ended it."""

    def __init__(self, reason: TlsFault, message: str, alert: int | None = None) -> None:
        super().__init__(reason, message)
        self.alert = alert


class TargetFault(Enum):
    """Why a connection to the target did not come about."""

    RESOLVE = "name-not-resolved"
    REFUSED = "connection-refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    EXHAUSTED = "out-of-descriptors"
    CLOSED = "closed-by-target"
    PROXY_REFUSED = "refused-by-proxy"
    PROXY_NOT_UNDERSTOOD = "proxy-not-understood"
    PROXY_CLOSED = "closed-by-proxy"


class TargetError(ReasonedError[TargetFault]):
    """The target cannot be reached."""


def describe_os_error(error: OSError) -> str:
    """Return the system's text for an error, in lower case like our own messages (`too many open files`)."""
    return (error.strerror or str(error)).lower()


@contextmanager
def identity_errors(what: str) -> Iterator[None]:
    """Turn everything that is raised inside into an IdentityError about `what`: the caller then keeps the previous identity.

    A panic of a library's Rust code is no Exception, and is known by its name only. The text of a foreign exception may quote a
    file, so it is not shown.
    """
    try:
        yield
    except (PeerDenied, WireError, TlsError) as error:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"{what}: {error}") from error
    except TunnelError:
        raise
    except BaseException as crash:
        if not isinstance(crash, Exception) and type(crash).__name__ != "PanicException":
            raise
        raise IdentityError(IdentityFault.CRASHED, f"{what}: internal error: {describe_crash(crash)}") from None


def describe_crash(crash: BaseException) -> str:
    """The type of an exception and where it was raised, for a report of a bug; nothing of its text."""
    place, trace = "", crash.__traceback__
    while isinstance(trace, TracebackType):
        place, trace = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})", trace.tb_next
    return f"{type(crash).__name__}{place}"
