"""The log: one line per event, in ghostunnel's format or as JSON, to standard output or another sink.

Before the event loop runs, each line is written at once. Then the lines of one batch of events are written together, and lines
about connections wait a little for the next one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection
from enum import Enum

from tunnel.log_output import DescriptorSink, LineOutput, Sink
from tunnel.time_format import UtcFormatter

STDOUT, STDERR = 1, 2
MAX_FOREIGN_TEXT = 512  # characters of one text from another process, after escaping
MAX_TRACE = 16 * 1024  # characters of a traceback
_CONNS_DELAY = 0.05  # seconds: two writes per connection, each with a turn of the loop, cost a tenth of a handshake
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\\\[\]]")
_UNSAFE_DETAIL = re.compile(r"[^\x20-\x7e]|\\")


class Category(Enum):
    """The categories of `--quiet`; lines of no other category are suppressed by `all` only."""

    __hash__ = object.__hash__  # in C

    CONNS = "conns"
    CONN_ERRORS = "conn-errs"
    HANDSHAKE_ERRORS = "handshake-errs"
    INFO = "info"  # suppressed by commands that log problems only; not a value of `--quiet`
    OTHER = "all"


def escape(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Return printable ASCII of at most `limit` characters; brackets are escaped, because they delimit fields of a line."""
    return _escape(text, limit, _UNSAFE)


def escape_detail(text: str) -> str:
    """Return printable ASCII where brackets delimit nothing: an IPv6 address stays readable."""
    return _escape(text, MAX_FOREIGN_TEXT, _UNSAFE_DETAIL)


def _escape(text: str, limit: int, unsafe: re.Pattern[str]) -> str:
    escaped = unsafe.sub(_escape_one, text[: limit + 1])
    return escaped if len(escaped) <= limit else _cut(text, limit, unsafe)


def one_line(text: str, limit: int | None = None) -> str:
    """Return `text` as one printable line, cut to `limit` characters; printable characters are unchanged."""
    if limit is not None and len(text) > limit:
        text = text[:limit] + "..."
    return text if text.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _escape_one(match: re.Match[str]) -> str:
    code = ord(match.group())
    return "\\\\" if code == 0x5C else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cut(text: str, limit: int, unsafe: re.Pattern[str]) -> str:
    """Escape as many whole characters as fit into `limit`."""
    end = room = 0
    while (room := room + len(unsafe.sub(_escape_one, text[end]))) <= limit:
        end += 1
    return unsafe.sub(_escape_one, text[:end]) + "..."


Format = Callable[[float, Category, str, str], str]  # time, category, message, fields; one line with its end


class TextFormat:
    """Ghostunnel's format."""

    def __init__(self) -> None:
        self._prefix = f"[{os.getpid()}] "
        self._second = -1
        self._stamp = ""

    def __call__(self, now: float, _category: Category, message: str, fields: str) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(second))
        return f"{self._prefix}{self._stamp}.{int((now - second) * 1e6):06d} {one_line(message)}{fields and ' '}{fields}\n"


class NamedFormat:
    """Lines of a command on a terminal: a name instead of process and time, or no prefix."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{name}: " if name else ""

    def __call__(self, _now: float, _category: Category, message: str, fields: str) -> str:
        return f"{self._prefix}{one_line(message)}{fields and ' '}{fields}\n"


class JsonFormat:
    """One JSON object per line."""

    def __init__(self) -> None:
        from json import JSONEncoder  # loaded only if it is chosen

        self._encode = JSONEncoder(separators=(",", ":")).encode
        self._pid = os.getpid()
        self._format_time = UtcFormatter()

    def __call__(self, now: float, category: Category, message: str, fields: str) -> str:
        line: dict[str, object] = {
            "time": self._format_time(now),
            "severity": _severity(category, message),
            "pid": self._pid,
            "message": one_line(message),
        }
        for field in fields.split():
            name, _, line[name] = field.partition("=")
        return self._encode(line) + "\n"


def _severity(category: Category, message: str) -> str:
    """`info`, `warn` or `error`, as in OpenTelemetry's log data model."""
    if category in (Category.INFO, Category.CONNS):
        return "info"
    is_ours = category is Category.OTHER  # else it is about a connection
    return "error" if is_ours and message.startswith(("error ", "error: ", "internal error: ")) else "warn"


class Log:
    """Formats lines and omits those of suppressed categories."""

    def __init__(
        self,
        quiet: Collection[Category] = (),
        *,
        schedule: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.time,
        sink: Sink | None = None,
        format_line: Format | None = None,
    ) -> None:
        self.change_quiet(quiet)
        self._clock = clock
        self._format = format_line or TextFormat()
        self.output = LineOutput(sink or DescriptorSink(STDOUT), schedule)
        self.output.on_dropped = self._report_dropped

    def defer(self, schedule: Callable[[float], None]) -> None:
        """Collect lines until `flush` is called, from now on: the event loop runs."""
        self.output.defer(schedule)

    def change_quiet(self, quiet: Collection[Category]) -> None:
        """Omit lines of these categories, and of no others, from now on."""
        self._quiet = frozenset(Category) if Category.OTHER in quiet else frozenset(quiet)

    @property
    def omitted(self) -> tuple[Category, ...]:
        """The categories whose lines are omitted."""
        return tuple(self._quiet)

    def is_enabled(self, category: Category) -> bool:
        """Return whether lines of a category are written, so that a caller can skip building them."""
        return category not in self._quiet

    def write(self, message: str, category: Category = Category.OTHER, *, fields: str = "", at: float | None = None) -> None:
        """Write one line at the next flush; it is dropped and counted if the backlog is full.

        `fields` are facts of our own as `key=value`, without blanks in the values; `at` is the Unix time of the event if it is
        not now.
        """
        if category not in self._quiet:
            self.write_at(self._clock() if at is None else at, message, category, fields)

    def write_at(self, now: float, message: str, category: Category, fields: str) -> None:
        """Write one line with this Unix time, also if its category is suppressed: a worker has omitted those already."""
        delay = _CONNS_DELAY if category is Category.CONNS else 0.0
        self.output.write(self._format(now, category, message, fields), delay)

    @property
    def dropped_total(self) -> int:
        """Lines that were dropped, since the start."""
        return self.output.dropped

    def info(self, message: str) -> None:
        """Write one line that reports no problem."""
        self.write(message, Category.INFO)

    def flush(self) -> None:
        """Write the collected lines."""
        self.output.flush()

    def with_fields(self, fields: str) -> Log:
        """Return a log that writes here, with these fields at the end of each line."""
        return _FieldLog(self, fields)

    def _report_dropped(self, dropped: int, cause: str) -> None:
        what = f"log could not be written: {cause}" if cause else "log reader was blocked"
        self.write(f"{what}: dropped_lines={dropped}")


class _FieldLog(Log):
    """Writes to another log, with the same fields at the end of each line."""

    def __init__(self, log: Log, fields: str) -> None:
        self._log = log
        self._fields = fields

    def is_enabled(self, category: Category) -> bool:
        return self._log.is_enabled(category)

    def write(self, message: str, category: Category = Category.OTHER, *, fields: str = "", at: float | None = None) -> None:
        self._log.write(message, category, fields=f"{fields}{fields and ' '}{self._fields}", at=at)

    def flush(self) -> None:
        self._log.flush()
