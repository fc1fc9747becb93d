"""Real shells that complete a line: keys are sent, and the resulting line is read.

The completed program is a shell function here, which records its arguments.
"""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.processes import LIMIT

_KEY = "\x18a"  # C-x a
_SEEN = 'tunnel() { printf \'%s\\n\' "$@" >"$SEEN.new"; mv "$SEEN.new" "$SEEN"; }\n'
_BASH = f"""\
PS1= PS2=
bind 'set enable-bracketed-paste off' 'set completion-query-items 0' 'set show-all-if-ambiguous on'
bind '"\\C-xa": insert-completions'
{_SEEN}
tunnel ready
"""
_ZSH = f"""\
PS1= PS2= RPS1=
unsetopt beep zle_bracketed_paste
autoload -Uz compinit && compinit -u -D
zle -C insert-all complete-word _generic
bindkey '\\C-xa' insert-all
zstyle ':completion:insert-all::::' completer _all_matches _complete
zstyle ':completion:insert-all:*' insert true
unset zle_bracketed_paste
{_SEEN}
tunnel ready
"""


class Shell:
    """A shell on a terminal of its own, in `directory`, with `script` read."""

    def __init__(self, program: str, script: Path, directory: Path) -> None:
        self._seen = directory.parent / "seen"
        start = directory.parent / "start"
        is_zsh = program.endswith("zsh")
        start.write_text(f"{_ZSH if is_zsh else _BASH}".replace("tunnel ready", f"source {script}\ntunnel ready"))
        self._master, slave = pty.openpty()
        self._popen = subprocess.Popen(
            [program, "-f", "-i"] if is_zsh else [program, "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            env={
                "PATH": os.environ["PATH"],
                "TERM": "dumb" if not is_zsh else "vt100",
                "SEEN": str(self._seen),
                "COLUMNS": "200",
                "HOME": str(directory),
            },
            start_new_session=True,
        )
        os.close(slave)
        self._said = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._press(f" source {start}\n")
        assert self._words() == ["ready"]

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._popen.kill()
        self._popen.wait(LIMIT)
        self._reader.join(LIMIT)
        os.close(self._master)

    def complete(self, line: str) -> list[str]:
        """The words of a line once all that is offered for its last one stands in that one's place."""
        self._press(f"{line}{_KEY}\n")
        return self._words()

    def _press(self, keys: str) -> None:
        self._seen.unlink(missing_ok=True)
        os.write(self._master, keys.encode())

    def _words(self) -> list[str]:
        deadline = time.monotonic() + LIMIT
        while not self._seen.exists():
            assert time.monotonic() < deadline, self._said.decode(errors="replace")
            time.sleep(0.005)
        return self._seen.read_text().splitlines()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self._said = (self._said + data)[-20000:]
