"""The exceptions of the program and their enumerated reasons.

A reason's value is also the `reason=` of a log line and the label of a metric: renaming one breaks dashboards. A message is in
lower case, states what was found and what is expected, has no full stop at the end, and never contains key material.
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


HIDDEN = "(hidden)"
# Secrets that an operator may have passed in place of a name, a path or an address.
_SECRETS = re.compile(
    r"-----BEGIN[^'\"]*"  # PEM
    r"|\beyJ[\w-]{6,}(?:\.[\w-]*)+"  # a token
    r"|\bMI[A-Za-z0-9+/_-]{62}[A-Za-z0-9+/_=-]*"  # DER in base64
    r"|(?<=://)[^'\"\s]*(?=@)|(?<=%3A%2F%2F)[^'\"\s]*(?=%40)"  # credentials of a URL
    r"|(?<![^\s'\"=])(?!(?:unix|systemd|launchd|sha[0-9]+):)[^\s'\"/:]+:[^\s'\"]+(?=@)",  # USER:PASSWORD@HOST
    re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """Return the text with everything that looks like a key, a token or a URL password replaced by `(hidden)`."""
    return _SECRETS.sub(HIDDEN, text)


def quote(text: str) -> str:
    """Return a value for an error message: in double quotes, printable ASCII, on one line."""
    escaped = ascii(text)[1:-1].replace('"', '\\"')
    return f'"{escaped}"'


class TunnelError(Exception):
    """The base of all expected errors; any other exception that escapes is a bug."""


class ReasonedError(TunnelError, Generic[Reason]):
    """An error with an enumerated reason."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ConfigError(TunnelError):
    """Flags, addresses or environment variables are invalid."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


class ConfigMistakes(ConfigError):
    """Several mistakes; the message has one line for each."""


def invalid_value(what: str, text: str, problem: str = "", expected: str = "") -> ConfigError:
    """Return the error for a text that cannot be used: `invalid WHAT "TEXT": PROBLEM; expected EXPECTED`."""
    message = f"invalid {what} {quote(text)}{f': {problem}' if problem else ''}"
    return ConfigError(f"{message}; expected {expected}" if expected else message)


class CommandError(TunnelError):
    """A command cannot be run; `exit_code` is the exit status that a shell reports for this."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WorkerError(TunnelError):
    """Worker processes cannot be started, or do not stay alive."""


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
    """A text is not a SPIFFE ID or a trust domain name."""

    def __init__(self, reason: IdFault, message: str) -> None:
        super().__init__(reason, hide_secrets(message))


class WireFault(Enum):
    """Why a message cannot be parsed."""

    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    NOT_TEXT = "not-text"


class WireError(ReasonedError[WireFault]):
    """Bytes are not the expected message."""


class IdentityFault(Enum):
    """Why an update of the Workload API or a set of files is rejected, or no identity is available."""

    NO_SVID = "no-svid"
    INCOMPLETE = "missing-field"
    BAD_MESSAGE = "bad-message"
    BAD_CERTIFICATE = "bad-certificate"
    BAD_KEY = "bad-key"
    BAD_BUNDLE = "bad-bundle"
    BAD_REVOCATION_LIST = "bad-revocation-list"
    BAD_HOST = "bad-host-name"
    WRONG_ID = "spiffe-id-mismatch"
    FILE = "file-unreadable"
    FORMAT = "bad-file-format"
    PASSWORD = "wrong-password"
    OVER_LIMIT = "over-limit"
    UNVERIFIED = "svid-verification-failed"
    REFUSED = "refused-by-agent"
    ACME = "acme-failed"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    CRASHED = "internal-error"


class IdentityError(ReasonedError[IdentityFault]):
    """An identity or a bundle cannot be used; `begins` is the start of its validity if it is only not yet valid."""

    def __init__(self, reason: IdentityFault, message: str, begins: datetime | None = None) -> None:
        super().__init__(reason, hide_secrets(message))
        self.begins = begins


class OutputError(TunnelError):
    """Output files could not be written; the previous ones are unchanged."""


class Denial(Enum):
    """Why a certificate is rejected or a peer is denied (X509-SVID, sections 2 to 5, and our own rules)."""

    UNREADABLE = "certificate-unreadable"
    NO_CERTIFICATE = "no-certificate"
    URI_SAN = "wrong-uri-san-count"
    SPIFFE_ID = "invalid-spiffe-id"
    ROOT_PATH = "id-without-path"
    LEAF_IS_CA = "leaf-is-ca"
    KEY_USAGE = "bad-key-usage"
    EXTENDED_KEY_USAGE = "bad-extended-key-usage"
    WEAK_KEY = "weak-key"
    WEAK_SIGNATURE = "weak-signature"
    NOT_CA = "issuer-is-not-ca"
    TRUST_DOMAIN = "trust-domain-mismatch"
    UNKNOWN_TRUST_DOMAIN = "unknown-trust-domain"
    UNKNOWN_AUTHORITY = "unknown-authority"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    BAD_PATH = "invalid-certification-path"
    REVOKED = "revoked"
    NO_REVOCATION_LIST = "no-revocation-list"
    HOST_NAME = "host-name-mismatch"
    PIN = "pin-mismatch"
    NO_RULE = "no-matching-rule"
    DENY_RULE = "denied-by-rule"
    FOREIGN_TRUST_DOMAIN = "trust-domain-not-accepted"
    POLICY_ERROR = "policy-error"
    PLAINTEXT = "plaintext-not-permitted"


class PeerDenied(ReasonedError[Denial]):
    """A certificate breaks a rule, or no access rule matches the peer; `peer` is set once its certificate is verified."""

    def __init__(self, reason: Denial, seen: str) -> None:
        super().__init__(reason, f"{reason.value}: {seen}")
        self.seen = seen
        self.peer: Any = None  # a Peer, whose class is in a higher layer


class IdentityLoss(Enum):
    """Why our identity cannot be used any more."""

    WITHDRAWN = "identity-withdrawn"
    EXPIRED = "identity-expired"


class WebRefusal(Enum):
    """Why the status port refuses a request."""

    HOST = "host-not-allowed"  # the Host header is not a name of this machine: DNS rebinding
    CROSS_SITE = "cross-site"  # a state-changing request from a page of another site


class TokenFault(Enum):
    """Why a token is not a valid JWT-SVID (JWT-SVID, sections 2 to 6, and our own limits)."""

    MALFORMED = "malformed-token"
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
    """A token is not a valid JWT-SVID, or was not issued."""

    def __init__(self, reason: TokenFault, message: str) -> None:
        super().__init__(reason, hide_secrets(message))


class PolicyFault(Enum):
    """Why a Rego policy cannot be loaded or evaluated."""

    NO_ENGINE = "engine-not-installed"
    UNREADABLE = "policy-unreadable"
    OVER_LIMIT = "over-limit"
    INVALID = "policy-invalid"
    EVALUATION = "evaluation-failed"
    TIMEOUT = "timeout"
    ENGINE = "evaluator-exited"


class PolicyError(ReasonedError[PolicyFault]):
    """A policy cannot be loaded or evaluated."""

    def __init__(self, reason: PolicyFault, message: str) -> None:
        super().__init__(reason, hide_secrets(message))


class TlsFault(Enum):
    """Why a TLS handshake or connection failed, other than the peer's identity."""

    PROTOCOL = "tls-failure"
    REFUSED = "refused-by-peer"
    CLOSED = "closed-during-handshake"
    RESET = "reset-during-handshake"
    TIMEOUT = "handshake-timeout"
    BUSY = "too-many-handshakes"
    NO_DATA = "records-without-data"


class TlsError(ReasonedError[TlsFault]):
    """A TLS connection failed; `alert` is the number of the alert that the peer sent, if it sent one."""

    def __init__(self, reason: TlsFault, message: str, alert: int | None = None) -> None:
        super().__init__(reason, message)
        self.alert = alert


class LimitFault(Enum):
    """Which limit per peer a connection of an admitted peer exceeds."""

    PEER_CONNS = "too-many-connections-of-peer"
    PEER_RATE = "too-many-new-connections-of-peer"


_REFUSALS = frozenset(reason.value for reason in (*Denial, *LimitFault))


def is_refusal(reason: str) -> bool:
    """Whether a reason is that a rule or a limit per peer refused a connection; else the connection failed."""
    return reason in _REFUSALS


class LimitExceeded(ReasonedError[LimitFault]):
    """A connection of an admitted peer exceeds a limit."""


class TargetFault(Enum):
    """Why a connection to the target failed."""

    RESOLVE = "name-not-resolved"
    REFUSED = "connection-refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    EXHAUSTED = "too-many-open-files"
    CLOSED = "closed-by-target"
    PROXY_REFUSED = "refused-by-proxy"
    PROXY_RESPONSE = "invalid-proxy-response"
    PROXY_CLOSED = "closed-by-proxy"


class TargetError(ReasonedError[TargetFault]):
    """A connection to the target failed."""


def describe_os_error(error: OSError) -> str:
    """Return the system's text for an error, in lower case like our own messages (`too many open files`)."""
    return (error.strerror or str(error)).lower()


@contextmanager
def identity_errors(what: str) -> Iterator[None]:
    """Turn every exception raised inside into an IdentityError about `what`, so that the caller keeps the previous identity.

    A panic in a library's Rust code is not an `Exception` and is recognized by its class name. The text of an unexpected
    exception may quote a file, so it is not shown.
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
    """Return the type of an exception and where it was raised, without its text, for a bug report."""
    place, trace = "", crash.__traceback__
    while isinstance(trace, TracebackType):
        place, trace = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})", trace.tb_next
    return f"{type(crash).__name__}{place}"
