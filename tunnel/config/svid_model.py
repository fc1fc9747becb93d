"""What `tunnel svid` keeps, where, and who is told, as frozen values.

Knows what can be chosen and in which types; must not know how it is written on a command line or on a disk.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import PurePath

from tunnel.config.model import WorkloadApi
from tunnel.net.address import ListenAddress
from tunnel.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class FileNames:
    """What the files of one identity are called; `bundle` is that of its own trust domain."""

    cert: str = "svid.pem"
    key: str = "svid_key.pem"
    bundle: str = "bundle.pem"

    def bundle_of(self, trust_domain: TrustDomain) -> str:
        """The file of a federated trust domain's bundle: the name of the own one, with the domain before its suffix."""
        own = PurePath(self.bundle)
        return f"{own.stem}.{trust_domain}{own.suffix}"


@dataclass(frozen=True, slots=True)
class Output:
    """The folder to keep, and how its files are to be."""

    folder: str
    names: FileNames = field(default_factory=FileNames)
    cert_mode: int = 0o644  # of bundles too
    key_mode: int = 0o600
    group: int | None = None  # its number; None leaves it to the system
    combined: str = ""  # a file with key and chain in one, besides
    is_expired_omitted: bool = False
    has_intermediates_in_bundle: bool = False


@dataclass(frozen=True, slots=True)
class PidFileSignal:
    """Tell a process by a signal; its number is read from the file each time."""

    path: str
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class ReloadCommand:
    """Tell whoever it concerns by running a program, for at most `limit` seconds."""

    argv: tuple[str, ...]
    limit: float


@dataclass(frozen=True, slots=True)
class ChildSignal:
    """Tell the command that we have started by a signal."""

    number: signal.Signals


Reload = PidFileSignal | ReloadCommand | ChildSignal


@dataclass(frozen=True, slots=True)
class Supervised:
    """A command that lives beside the files: started after they are written, ended with us."""

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
    """What the Workload API gives, looked at once."""

    source: WorkloadApi
    is_json: bool = False
    is_pem: bool = False
