"""How things stand: what is on the disk, until when it is valid, and how whoever uses it fares.

Knows what health and metrics are made of; must not know who asks, nor how anything here comes about.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.svid.material import Material
from tunnel.time_format import format_time, time_of


@dataclass(slots=True)
class WatchState:
    """Written by the tasks of `watch`, read by whoever wants to know."""

    written: Material | None = None
    written_at: float = 0.0  # seconds since the epoch
    rotations: int = 0  # updates that were written
    trouble: str = ""  # with the Workload API, "" when all is well
    left_out: int = 0  # SVIDs of updates that could not be used
    write_error: str = ""
    reloads: int = 0
    reload_failures: int = 0
    reload_error: str = ""  # of the newest attempt
    has_child: bool = False
    child_pid: int | None = None  # None while it does not run
    child_starts: int = 0
    child_exit_code: int | None = None  # of the last that ended

    def take(self, material: Material, now: float, *, is_rotation: bool = True) -> None:
        """These files are on the disk now; no rotation when the same ones had to be written again."""
        self.written = material
        self.write_error = ""
        if is_rotation:
            self.written_at = now
            self.rotations += 1

    def seconds_left(self, now: float) -> float | None:
        """Until what is on the disk expires; None when there is nothing."""
        return self.written.not_after.timestamp() - now if self.written else None

    def is_ready(self, now: float, fault: str) -> bool:
        """Whether a valid identity is at its paths, however the agent is; `fault` says why its files are not there."""
        return self._is_valid(now) and not fault

    def is_live(self, now: float) -> bool:
        """Whether a restart would not help: what was written is valid, or the first identity is awaited.

        Missing files are written again without a restart.
        """
        return self.written is None or self._is_valid(now)

    def _is_valid(self, now: float) -> bool:
        left = self.seconds_left(now)
        return left is not None and left > 0

    def document(self, now: float, fault: str) -> dict[str, object]:
        """All of it for JSON."""
        written = self.written
        return {
            "live": self.is_live(now),
            "ready": self.is_ready(now, fault),
            "spiffe_id": str(written.spiffe_id) if written else None,
            "hint": written.hint if written else None,
            "serial": written.serial if written else None,
            "expiry": format_time(written.not_after) if written else None,
            "last_rotation": time_of(self.written_at) if written else None,
            "rotations": self.rotations,
            "trouble": self.trouble,
            "write_error": self.write_error,
            "file_error": fault,
            "reload": {"done": self.reloads, "failed": self.reload_failures, "error": self.reload_error},
            "child": self._child() if self.has_child else None,
        }

    def _child(self) -> dict[str, object]:
        state = "running" if self.child_pid else "ended" if self.child_starts else "waiting"
        return {"state": state, "pid": self.child_pid, "starts": self.child_starts, "exit_code": self.child_exit_code}

    def numbers(self, fault: str) -> dict[str, tuple[str, float]]:
        """What can be drawn as a curve: by name, its kind and its value."""
        numbers: dict[str, tuple[str, float]] = {
            "tunnel_svid_workload_api_ok": ("gauge", not self.trouble),
            "tunnel_svid_identities_left_out_total": ("counter", self.left_out),
            "tunnel_svid_rotations_total": ("counter", self.rotations),
            "tunnel_svid_reloads_total": ("counter", self.reloads),
            "tunnel_svid_reload_failures_total": ("counter", self.reload_failures),
        }
        if self.written is not None:
            numbers["tunnel_svid_files_present"] = ("gauge", not fault)
            numbers["tunnel_svid_last_rotation_timestamp_seconds"] = ("gauge", self.written_at)
            numbers["tunnel_svid_expiry_timestamp_seconds"] = ("gauge", self.written.not_after.timestamp())
        if self.has_child:
            numbers["tunnel_svid_child_running"] = ("gauge", self.child_pid is not None)
            numbers["tunnel_svid_child_starts_total"] = ("counter", self.child_starts)
        return numbers
