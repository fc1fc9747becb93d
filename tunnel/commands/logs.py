"""Opens the log and the access log of a process."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from tunnel.config.model import LogConfig
from tunnel.log import STDERR, STDOUT, JsonFormat, Log
from tunnel.log_output import DescriptorSink, LineOutput, Sink
from tunnel.syslog import SyslogSink, open_syslog

if TYPE_CHECKING:  # loaded only with an access log
    from tunnel.listener.access_log import AccessLog


def open_log(config: LogConfig, descriptor: int) -> Log:
    """The log of this process: syslog, or this descriptor."""
    sink: Sink = _open_syslog() if config.is_syslog else DescriptorSink(descriptor)
    return Log(config.omitted, sink=sink, format_line=JsonFormat() if config.format == "json" else None)


def open_access_log(config: LogConfig, log: Log, descriptor: int) -> AccessLog | None:
    """The access log, None if it is off; it shares the output of `log` if both go to the same place. Raises ConfigError.

    `descriptor` is that of `log`, unless that is the syslog.
    """
    access = config.access
    if access.format == "off":
        return None
    from tunnel.listener.access_event import JsonEvents, LogfmtEvents
    from tunnel.listener.access_log import AccessLog

    form = JsonEvents() if access.format == "json" else LogfmtEvents()
    place = "syslog" if config.is_syslog else {STDOUT: "stdout", STDERR: "stderr"}[descriptor]
    if access.target in ("log", place):
        return AccessLog(log.output, form, has_start=access.has_start)
    sink = _open_sink(access.target)
    output = LineOutput(sink)
    output.on_failed, output.on_dropped = partial(_report_failed, log), partial(_report_dropped, log)
    return AccessLog(output, form, has_start=access.has_start, sink=sink)


def _open_sink(target: str) -> Sink:
    if target == "syslog":
        return _open_syslog()
    if target in ("stdout", "stderr"):
        return DescriptorSink(STDOUT if target == "stdout" else STDERR)
    from tunnel.log_file import LogFile

    return LogFile(target)


def _open_syslog() -> SyslogSink:
    name = os.path.basename(sys.argv[0])
    return open_syslog("tunnel" if name == "__main__.py" else name, os.getpid())


def _report_failed(log: Log, cause: str) -> None:
    log.write(f"access log cannot be written: {cause}; dropping events until it can")


def _report_dropped(log: Log, dropped: int, cause: str) -> None:
    what = f"access log could not be written: {cause}" if cause else "access log reader was blocked"
    log.write(f"{what}: dropped_lines={dropped}")
