"""How `tunnel connect` and `tunnel exec` speak: not at all unless asked, or until something goes wrong.

Knows standard error and what is kept for later; must not know what any line means.
"""

from __future__ import annotations

from tunnel.cli.output import has_person, say
from tunnel.config.model import Source, WorkloadApi
from tunnel.log import STDERR, Category, DescriptorSink, Log

_NAME = "tunnel"
_MOST = 20  # lines that are kept: what went wrong first, and then how often more


class Kept:
    """A sink that keeps lines until they are asked for."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lost = 0

    def write(self, data: bytes, start: int) -> int:
        """Take all of it."""
        for line in data[start:].decode("ascii", "replace").splitlines():
            if line in self._counts or len(self._counts) < _MOST:
                self._counts[line] = self._counts.get(line, 0) + 1
            else:
                self._lost += 1
        return len(data)

    def take(self) -> list[str]:
        """What was kept, each line once, and nothing is kept of it any more."""
        lines = [line if count == 1 else f"{line} ({count} times)" for line, count in self._counts.items()]
        if self._lost:
            lines.append(f"{self._lost} lines more are left out: say -v to see them as they come")
        self._counts.clear()
        self._lost = 0
        return lines


class DeferredLog:
    """A log that is read at once, or one of trouble only, which is kept."""

    def __init__(self, *, is_verbose: bool) -> None:
        self._kept = Kept()
        if is_verbose:
            self.log = Log(sink=DescriptorSink(STDERR), name=_NAME)
        else:
            self.log = Log([Category.INFO, Category.CONNS], sink=self._kept, name="")

    def complain(self, source: Source) -> None:
        """Tell a person at a terminal what we wait for, and what was in the way last."""
        if has_person():  # else the lines are kept for the report
            where = source.endpoint if isinstance(source, WorkloadApi) else source
            say(f"waiting for an identity from {where}: {(self._kept.take() or ['no answer yet'])[-1]}")

    def forget(self) -> None:
        """What was kept is of no interest any more."""
        self._kept.take()

    def report(self) -> bool:
        """Say what was kept; whether that was anything."""
        self.log.flush()
        lines = self._kept.take()
        for line in lines:
            say(line)
        return bool(lines)
