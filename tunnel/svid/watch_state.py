"""The state of `svid watch`, its health endpoint (/live, /ready, /metrics), and the events of its command."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from tunnel.errors import CommandError
from tunnel.http.connection import Request, Respond, Response
from tunnel.lazy_dataclass import dataclass
from tunnel.status.exposition import PROMETHEUS_TYPE, encode_head, encode_sample
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.update_files import UpdateFiles
from tunnel.time_format import format_time, time_of


@dataclass(slots=True)
class WatchState:
    """Written by the tasks of `watch`; health and metrics are made of it."""

    written: UpdateFiles | None = None
    written_at: float = 0.0  # seconds since the epoch
    rotations: int = 0  # updates that were written
    trouble: str = ""  # with the Workload API, "" if there is none
    skipped: int = 0  # SVIDs of updates that could not be used
    write_error: str = ""
    reloads: int = 0
    reload_failures: int = 0
    reload_error: str = ""  # of the newest attempt
    has_child: bool = False
    child_pid: int | None = None  # None while it does not run
    child_starts: int = 0
    child_exit_code: int | None = None  # of the last that ended

    def record_written(self, update: UpdateFiles, now: float, *, is_rotation: bool = True) -> None:
        """Record the files that are on the disk now; no rotation if the same files had to be written again."""
        self.written = update
        self.write_error = ""
        if is_rotation:
            self.written_at = now
            self.rotations += 1

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until the written identity expires; None if nothing is written."""
        return self.written.not_after.timestamp() - now if self.written else None

    def is_ready(self, now: float, file_error: str) -> bool:
        """Whether a valid identity is at its paths, whatever the state of the agent; `file_error` is why it is not there."""
        return self._is_valid(now) and not file_error

    def is_live(self, now: float) -> bool:
        """Whether a restart would not help: the written identity is valid, or the first identity is awaited.

        Missing files are written again without a restart.
        """
        return self.written is None or self._is_valid(now)

    def _is_valid(self, now: float) -> bool:
        left = self.seconds_left(now)
        return left is not None and left > 0

    def document(self, now: float, file_error: str) -> dict[str, object]:
        """Return the whole state for JSON."""
        written = self.written
        return {
            "live": self.is_live(now),
            "ready": self.is_ready(now, file_error),
            "spiffe_id": str(written.spiffe_id) if written else None,
            "hint": written.hint if written else None,
            "serial": written.serial if written else None,
            "expiry": format_time(written.not_after) if written else None,
            "last_rotation": time_of(self.written_at) if written else None,
            "rotations": self.rotations,
            "trouble": self.trouble,
            "write_error": self.write_error,
            "file_error": file_error,
            "reload": {"done": self.reloads, "failed": self.reload_failures, "error": self.reload_error},
            "child": self._child() if self.has_child else None,
        }

    def _child(self) -> dict[str, object]:
        state = "running" if self.child_pid else "ended" if self.child_starts else "waiting"
        return {"state": state, "pid": self.child_pid, "starts": self.child_starts, "exit_code": self.child_exit_code}

    def numbers(self, file_error: str) -> dict[str, tuple[str, float]]:
        """Return the metrics: type and value by name."""
        numbers: dict[str, tuple[str, float]] = {
            "tunnel_svid_workload_api_ok": ("gauge", not self.trouble),
            "tunnel_svid_identities_skipped_total": ("counter", self.skipped),
            "tunnel_svid_rotations_total": ("counter", self.rotations),
            "tunnel_svid_reloads_total": ("counter", self.reloads),
            "tunnel_svid_reload_failures_total": ("counter", self.reload_failures),
        }
        if self.written is not None:
            numbers["tunnel_svid_files_present"] = ("gauge", not file_error)
            numbers["tunnel_svid_last_rotation_timestamp_seconds"] = ("gauge", self.written_at)
            numbers["tunnel_svid_expiry_timestamp_seconds"] = ("gauge", self.written.not_after.timestamp())
        if self.has_child:
            numbers["tunnel_svid_child_running"] = ("gauge", self.child_pid is not None)
            numbers["tunnel_svid_child_starts_total"] = ("counter", self.child_starts)
        return numbers


class CommandReporter:
    """Records what happens to the supervised command in the state and in the event log."""

    def __init__(self, state: WatchState, event_log: EventLog) -> None:
        self._state = state
        self._event_log = event_log
        state.has_child = True

    def started(self, name: str, pid: int) -> None:
        """The command runs."""
        self._state.child_pid = pid
        self._state.child_starts += 1
        self._event_log.write(Event.STARTED, f"started {name}, process {pid}", pid=pid)

    def start_failed(self, error: CommandError) -> None:
        """The command cannot be run."""
        self._state.child_exit_code = error.exit_code
        self._event_log.write(Event.ENDED, f"cannot start {error}", exit_code=error.exit_code)

    def stop_timed_out(self, name: str, limit: float) -> None:
        """The command has not ended within the stop limit and is killed."""
        self._event_log.write(Event.NOTICE, f"{name} has not ended within {limit:g}s of the stop: killed")

    def ended(self, name: str, pid: int, exit_code: int, status: str) -> None:
        """The command has ended."""
        self._state.child_pid, self._state.child_exit_code = None, exit_code
        self._event_log.write(Event.ENDED, f"{name} {status}", pid=pid, exit_code=exit_code)


def build_health_responder(
    state: WatchState, find_file_error: Callable[[], Awaitable[str]], wall: Callable[[], float] = time.time
) -> Respond:
    """Return a function that answers requests: 200 if healthy, else 503, with the state as JSON.

    `find_file_error` is called for each request: why the written files are not at their paths, "" if they are.
    """

    async def respond(request: Request) -> Response:
        file_error, now = await find_file_error(), wall()
        document = state.document(now, file_error)
        match request.path:
            case "/live":
                return _respond(is_healthy=state.is_live(now), document=document)
            case "/ready":
                return _respond(is_healthy=state.is_ready(now, file_error), document=document)
            case "/metrics":
                return Response(_encode(state.numbers(file_error)), content_type=PROMETHEUS_TYPE)
        return Response(b"404 page not found: expected /live, /ready or /metrics\n", HTTPStatus.NOT_FOUND)

    return respond


def _respond(*, is_healthy: bool, document: dict[str, object]) -> Response:
    status = HTTPStatus.OK if is_healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(json.dumps(document).encode() + b"\n", status, "application/json")


def _encode(numbers: dict[str, tuple[str, float]]) -> bytes:
    return "".join(encode_head(name, kind) + encode_sample(name, value) for name, (kind, value) in numbers.items()).encode()
