"""The texts of the log's lines about connections.

Knows ghostunnel's line of a pipe, to which our fields are added at the end, and the notations of its numbers; must not
know when a line is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.peer import Admitted
from tunnel.log import escape

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class Pipe:
    """Both ends of a carried connection: the accepted one, the dialled one, and which of them speaks TLS."""

    accepted: str
    target_connected: str
    is_server: bool
    admitted: Admitted

    def opening(self) -> str:
        """The line for its beginning."""
        return f"opening pipe: {self._ends()} {self.who()}"

    def closed(self, forwarded: int, returned: int, seconds: float, how: str) -> str:
        """The line for its end; forwarded is from the accepted to the dialled side."""
        span = format_duration(seconds)
        counts = f"[forwarded {format_size(forwarded)}, returned {format_size(returned)}, open {span}]"
        return f"closed pipe: {self._ends()} {counts} {self.who()} end={how}"

    def _ends(self) -> str:
        peer = self.admitted.peer
        subject = "no cert" if peer is None else escape(peer.subject)
        accepted, target_connected = (subject, "no tls") if self.is_server else ("no tls", subject)
        return f"{show_address(self.accepted)} [{accepted}] <-> {show_address(self.target_connected)} [{target_connected}]"

    def who(self) -> str:
        return str(self.admitted)


def show_address(text: str) -> str:
    """An address of a socket: a numeric one is the kernel's own text, the path of a Unix socket may be anything."""
    return text if text.startswith("tcp:") else escape(text)


def format_size(size: int) -> str:
    """`12 bytes`, `1.2 KiB`."""
    if size < 1024:
        return f"{size} bytes"
    value = float(size)
    for unit in _UNITS:
        value /= 1024
        if value < 1024 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Go's notation, rounded to milliseconds from one millisecond on: `345ms`, `1m3.2s`, `532µs` as `532us`."""
    if seconds < 0.0009995:  # above, it rounds to a whole millisecond, and so again with the second
        return f"{max(seconds, 0) * 1e6:.0f}us"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
