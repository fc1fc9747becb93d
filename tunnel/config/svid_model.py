"""The configuration of `tunnel svid` as frozen values."""

from __future__ import annotations

import signal
from pathlib import PurePath

from tunnel.config.model import WorkloadApi
from tunnel.errors import SpiffeIdError, invalid_value
from tunnel.lazy_dataclass import dataclass, field
from tunnel.net.address import ListenAddress
from tunnel.spiffe.ids import TrustDomain, parse_trust_domain


@dataclass(frozen=True, slots=True)
class FileNames:
    """The names of the files of one identity; `bundle` is that of its own trust domain."""

    cert: str = "svid.pem"
    key: str = "svid_key.pem"
    bundle: str = "bundle.pem"

    def bundle_of(self, trust_domain: TrustDomain) -> str:
        """The file of a federated trust domain's bundle: the name of our own with the domain before its suffix."""
        own = PurePath(self.bundle)
        return f"{own.stem}.{trust_domain}{own.suffix}"


@dataclass(frozen=True, slots=True)
class Output:
    """The directory to write, and the attributes of its files."""

    folder: str
    names: FileNames = field(default_factory=FileNames)
    cert_mode: int = 0o644  # of bundles too
    key_mode: int = 0o600
    group: int | None = None  # its number; None leaves it to the system
    combined: str = ""  # an additional file with key and chain
    is_expired_omitted: bool = False
    has_intermediates_in_bundle: bool = False


@dataclass(frozen=True, slots=True)
class PidFileSignal:
    """Notify a process by a signal; its process ID is read from the file each time."""

    path: str
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class ReloadCommand:
    """Notify by running a program, for at most `limit` seconds."""

    argv: tuple[str, ...]
    limit: float = 30.0


@dataclass(frozen=True, slots=True)
class ChildSignal:
    """Notify the child command by a signal."""

    number: signal.Signals


Reload = PidFileSignal | ReloadCommand | ChildSignal


@dataclass(frozen=True, slots=True)
class Supervised:
    """A child command: started after the files are written, stopped with this process; `stop_limit` in seconds."""

    argv: tuple[str, ...]
    is_restarted: bool = False
    stop_limit: float = 10.0


@dataclass(frozen=True, slots=True)
class FetchConfig:
    """One identity, written once."""

    source: WorkloadApi
    output: Output
    is_quiet: bool = False
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """One identity, written again at every update."""

    source: WorkloadApi
    output: Output
    reload: Reload | None = None
    child: Supervised | None = None
    health: ListenAddress | None = None
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class ShowConfig:
    """The identities of the Workload API, printed once."""

    source: WorkloadApi
    is_json: bool = False
    is_pem: bool = False


@dataclass(frozen=True, slots=True)
class OutputFile:
    """The file for a token or for bundles; `is_watched` keeps it up to date."""

    path: str
    mode: int
    group: int | None  # its number; None leaves it to the system
    is_watched: bool


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """One JWT-SVID, printed or written to a file."""

    source: WorkloadApi
    audience: tuple[str, ...]
    file: OutputFile | None = None
    is_decoded: bool = False
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class JwtBundlesConfig:
    """The JWT bundles, printed or written to a file."""

    source: WorkloadApi
    file: OutputFile | None = None
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file with a bundle, and the one trust domain that it is for."""

    path: str
    trust_domain: TrustDomain


def parse_bundle_file(text: str) -> BundleFile:
    """`TRUST-DOMAIN=FILE`; raises ConfigError."""
    name, _, path = text.partition("=")
    form = "TRUST-DOMAIN=FILE, such as example.org=FILE"
    try:
        trust_domain = parse_trust_domain(name) if path else None
    except SpiffeIdError as error:
        raise invalid_value("bundle", text, str(error), form) from error
    if trust_domain is None:
        raise invalid_value("bundle", text, "missing trust domain or file", form)
    return BundleFile(path, trust_domain)


@dataclass(frozen=True, slots=True)
class JwtVerifyConfig:
    """One token to verify: by the Workload API, or locally with its bundles or with a bundle file."""

    path: str
    audience: str
    source: WorkloadApi | None
    is_local: bool
    bundle: BundleFile | None
    is_json: bool


@dataclass(frozen=True, slots=True)
class SvidVerifyConfig:
    """One certificate to verify, and the bundle for its certification path, if any."""

    path: str
    key_path: str
    bundle: BundleFile | None
    source: WorkloadApi | None
    is_json: bool
