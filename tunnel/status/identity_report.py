"""What status ports and metrics show of our identities and of the trust domains, as values without keys."""

from __future__ import annotations

from tunnel.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Rotation:
    """Credentials that were put into use."""

    time: float  # Unix time
    serial: str  # of our certificate, in hexadecimal; "" without one
    not_after: float | None  # Unix time at which our certificate expires; None without one


@dataclass(frozen=True, slots=True)
class TrustDomainReport:
    """The trust bundle of one trust domain."""

    name: str
    authorities: int
    expires: float | None  # Unix time at which the first authority expires; None without an authority


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """One identity source and what it has delivered; times are Unix times."""

    name: str  # in the configuration file; "" on a command line
    source: str  # `SPIFFE Workload API`, ...
    listeners: tuple[str, ...]
    subject: str  # the SPIFFE ID, else the subject of the certificate; "" without one
    serial: str
    not_before: float | None
    not_after: float | None
    generation: int
    problem: str  # of the source; "" if it works
    rotations: tuple[Rotation, ...]  # the newest first
    trust_domains: tuple[TrustDomainReport, ...]  # none with certificates from files
    replaced: int = 0  # how often our certificate was replaced by another one


NO_CREDENTIALS = IdentityReport("", "", (), "", "", None, None, 0, "", (), ())
