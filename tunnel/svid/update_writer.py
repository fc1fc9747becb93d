"""Writes each update of `svid watch` to the directory, and restores files that other processes change."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from tunnel.config.svid_model import Output
from tunnel.errors import IdentityError, OutputError, identity_errors
from tunnel.identity.credentials import SvidCredentials
from tunnel.svid.atomic_directory import AtomicDirectory, ReplaceResult
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.update_files import UpdateFiles, build_update_files, describe_written, facts_of
from tunnel.svid.watch_state import WatchState
from tunnel.time_format import format_time

_RETRY = 2.0  # seconds between attempts to write
_CHECK_INTERVAL = 5.0  # seconds between checks of the files, and of the clock, which may have been set
_CHECK_LIMIT = 5.0  # seconds for a check of the files for a health request; a file system may hang


class UpdateWriter:
    """Writes the newest update: a failed write is retried until it succeeds or a newer update replaces it."""

    def __init__(
        self,
        output: Output,
        directory: AtomicDirectory,
        event_log: EventLog,
        state: WatchState,
        on_written: Callable[[bool], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`on_written` is called after each write, with True for the first."""
        self._output = output
        self._directory = directory
        self._event_log = event_log
        self._state = state
        self._on_written = on_written
        self._wall = wall
        self._newest: SvidCredentials | None = None
        self._changed = trio.Event()
        self.has_update = trio.Event()
        self.has_written = trio.Event()

    def submit(self, credentials: SvidCredentials) -> None:
        """Write this update in place of all earlier ones."""
        self._newest = credentials
        self._changed.set()
        self.has_update.set()

    async def run(self) -> None:
        """Write updates and restore files until cancelled."""
        await self._changed.wait()
        is_written = False
        while True:
            if self._changed.is_set() or not is_written or await self.find_fault():
                self._changed = trio.Event()
                is_written = await self._write_newest()
            with trio.move_on_after(_CHECK_INTERVAL if is_written else _RETRY):
                await self._changed.wait()

    async def find_fault(self) -> str:
        """Return why the files are not where they were written; "" if they are, or if none was written yet."""
        if self._state.written is None:
            return ""
        return await trio.to_thread.run_sync(self._directory.find_fault, abandon_on_cancel=True)

    async def find_file_error(self) -> str:
        """Return the result of `find_fault`, within a time limit."""
        with trio.move_on_after(_CHECK_LIMIT):
            return await self.find_fault()
        return f"{self._directory.path}: no answer within {_CHECK_LIMIT:g}s"

    async def _write_newest(self) -> bool:
        """Write the newest update; return whether it is on the disk."""
        assert self._newest is not None
        try:
            with identity_errors("the update cannot be written"):
                update = build_update_files(self._newest, self._output, datetime.fromtimestamp(self._wall(), UTC))
        except IdentityError as error:
            self._report_write_error(str(error), "keeping the previous files")
            return False
        before = self._state.written
        is_same = before is not None and (before.files, before.combined) == (update.files, update.combined)
        fault = await self.find_fault()
        if is_same and not fault:
            self._report_recovery()
            return True  # the update changed an identity that is not the selected one
        try:
            replaced = await trio.to_thread.run_sync(self._directory.replace, update.files, update.combined)
        except OutputError as error:
            self._report_write_error(str(error), "the files are not in place" if fault else "keeping the previous files")
            return False
        self._state.record_written(update, self._wall(), is_rotation=not is_same)
        self._report_written(update, replaced)
        self.has_written.set()
        self._on_written(before is None)
        return True

    def _report_recovery(self) -> None:
        if self._state.write_error:
            self._state.write_error = ""
            self._event_log.write(Event.UPDATE, f"the files in {self._directory.path} are up to date again")

    def _report_write_error(self, error: str, consequence: str) -> None:
        if error != self._state.write_error:
            self._state.write_error = error
            consequence = consequence if self._state.written else "there are no files yet"
            self._event_log.write(Event.WRITE_FAILED, f"{error}; {consequence}, retrying")

    def _report_written(self, update: UpdateFiles, replaced: ReplaceResult) -> None:
        if replaced.fault:
            self._event_log.write(Event.FILES_CHANGED, f"{replaced.fault}: written again")
        for note in update.notes:
            self._event_log.write(Event.NOTICE, f"warning: {note}")
        for notice in replaced.describe_foreign(self._directory.path):
            self._event_log.write(Event.NOTICE, notice)
        self._event_log.write(
            Event.WRITTEN,
            describe_written(update, self._directory.path),
            **facts_of(update, self._directory.path),
            rotation=self._state.rotations,
        )

    async def report_expiry(self) -> None:
        """Report each written identity that expires, until cancelled."""
        await self.has_written.wait()
        expired = None
        while True:
            written = self._state.written
            left = self._state.seconds_left(self._wall())
            if written is not None and written is not expired and left is not None and left <= 0:
                expired = written
                self._event_log.write(
                    Event.EXPIRED,
                    f"{written.spiffe_id} in {self._directory.path} expired at {format_time(written.not_after)}; "
                    "keeping the files, peers will refuse them",
                    **facts_of(written, self._directory.path),
                )
            self._event_log.flush()
            await trio.sleep(min(_CHECK_INTERVAL, max(left, 0.1)) if left is not None and left > 0 else _CHECK_INTERVAL)
