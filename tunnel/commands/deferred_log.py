"""The log of `tunnel connect` and `tunnel exec`: printed with `--verbose`, else kept and printed if something fails."""

from __future__ import annotations

from tunnel.cli.output import is_interactive, print_message
from tunnel.config.model import Source, WorkloadApi
from tunnel.log import STDERR, Category, Log, NamedFormat
from tunnel.log_output import DescriptorSink

_NAME = "tunnel"
_MAX_LINES = 20  # different lines that are kept: the first failures, each with its count


class LineBuffer:
    """A log sink that keeps the first lines, each once with its count."""

    lost = 0
    problem = ""
    is_failing = False

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._dropped = 0

    def write(self, data: bytes, start: int) -> int:
        """Accept all bytes."""
        for line in data[start:].decode("ascii", "replace").splitlines():
            if line in self._counts or len(self._counts) < _MAX_LINES:
                self._counts[line] = self._counts.get(line, 0) + 1
            else:
                self._dropped += 1
        return len(data)

    def take(self) -> list[str]:
        """Remove and return the lines."""
        lines = [line if count == 1 else f"{line} ({count} times)" for line, count in self._counts.items()]
        if self._dropped:
            lines.append(f"{self._dropped} more lines are omitted: use -v to see all lines")
        self._counts.clear()
        self._dropped = 0
        return lines


class DeferredLog:
    """Keeps the log lines about failures for `report`; with `--verbose` prints every line at once instead."""

    def __init__(self, *, is_verbose: bool) -> None:
        self._buffer = LineBuffer()
        if is_verbose:
            self.log = Log(sink=DescriptorSink(STDERR), format_line=NamedFormat(_NAME))
        else:
            self.log = Log([Category.INFO, Category.CONNS], sink=self._buffer, format_line=NamedFormat(""))

    def report_waiting(self, source: Source) -> None:
        """Print on a terminal what the command waits for, and the last failure."""
        if is_interactive():  # else the lines are kept for `report`
            where = source.endpoint if isinstance(source, WorkloadApi) else source
            print_message(f"waiting for an identity from {where}: {(self._buffer.take() or ['no answer yet'])[-1]}")

    def clear(self) -> None:
        """Discard the lines."""
        self._buffer.take()

    def report(self) -> bool:
        """Print the lines; returns whether there were any."""
        self.log.flush()
        lines = self._buffer.take()
        for line in lines:
            print_message(line)
        return bool(lines)
