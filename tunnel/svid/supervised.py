"""A command that lives beside the files.

Knows how it is started, signalled and ended; must not know what it is told for. Its streams and terminal are ours. It may be
started again and again, so `tunnel/child/launcher.py`, which runs one command once, is no help.
SIGHUP and SIGUSR1 must have a handler in this process while it lives: signals that are ignored here would be ignored there.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping

import trio

from tunnel.child.orders import ABSENT, NOT_EXECUTABLE, NOT_FOUND, code_of_end
from tunnel.config.svid_model import ChildSignal, Supervised
from tunnel.errors import words_of
from tunnel.identity.backoff import Backoff
from tunnel.svid.journal import Event, Journal
from tunnel.svid.pid_file import Told
from tunnel.svid.reload import describe_end
from tunnel.svid.standing import Standing

_STEADY = 10.0  # seconds that a command must have lived to be started again at once
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class Child:
    """One command, started once or again and again."""

    def __init__(
        self, config: Supervised, journal: Journal, standing: Standing, environ: Mapping[str, str] | None = None
    ) -> None:
        """`environ` is what the command is given; None for all that we have."""
        self._config = config
        self._environ = environ
        self._journal = journal
        self._standing = standing
        self._name = shlex.quote(os.path.basename(config.argv[0]))
        self._process: trio.Process | None = None
        standing.has_child = True

    async def run(self) -> int:
        """See it to its end; its exit code, 128 and the number for one that a signal ended. Ended with us when cancelled."""
        backoff = Backoff()
        while True:
            began = trio.current_time()
            code = await self._run_once()
            if not self._config.is_restarted or code in (NOT_FOUND, NOT_EXECUTABLE):
                return code
            if trio.current_time() - began >= _STEADY:
                backoff.reset()
            await trio.sleep(backoff.next(floor=_PAUSE, cap=_LONGEST_PAUSE))

    async def tell(self, way: ChildSignal) -> Told:
        """Send it a signal; one that does not run finds the new files when it starts."""
        if self._process is None or self._process.returncode is not None:
            return Told(True, f"{self._name} is not running, and needs no {way.number.name}")
        self._process.send_signal(way.number)
        return Told(True, f"sent {way.number.name} to {self._name}, process {self._process.pid}")

    async def _run_once(self) -> int:
        try:
            self._process = process = await trio.lowlevel.open_process(list(self._config.argv), env=self._environ)
        except (OSError, ValueError) as error:
            return self._fail(error)
        self._standing.child_pid = process.pid
        self._standing.child_starts += 1
        self._journal.tell(Event.STARTED, f"started {self._name}, process {process.pid}", pid=process.pid)
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                await self._stop(process)
            code = self._note_end(process)
        return code

    def _note_end(self, process: trio.Process) -> int:
        assert process.returncode is not None
        code = code_of_end(process.returncode)
        self._standing.child_pid, self._standing.child_exit_code = None, code
        self._journal.tell(Event.ENDED, f"{self._name} {describe_end(process.returncode)}", pid=process.pid, exit_code=code)
        return code

    def _fail(self, error: OSError | ValueError) -> int:
        code = NOT_FOUND if isinstance(error, OSError) and error.errno in ABSENT else NOT_EXECUTABLE
        why = words_of(error) if isinstance(error, OSError) else "an argument has a null byte"
        self._standing.child_exit_code = code
        self._journal.tell(Event.ENDED, f"cannot start {self._name}: {why}", exit_code=code)
        return code

    async def _stop(self, process: trio.Process) -> None:
        """Ask it to end, and end it when it does not."""
        with trio.CancelScope(shield=True):
            process.send_signal(signal.SIGTERM)
            with trio.move_on_after(self._config.stop_limit):
                await process.wait()
                return
            self._journal.tell(
                Event.NOTICE, f"{self._name} has not ended within {self._config.stop_limit:g}s of SIGTERM: killed"
            )
            process.kill()
            await process.wait()
