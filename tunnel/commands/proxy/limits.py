"""The flags of limits, of the log and of the process, shared by the commands with proxies."""

from __future__ import annotations

from tunnel.cli.command import Arguments, Group, option, repeated, switch
from tunnel.commands.proxy import tls
from tunnel.config.model import ACCESS_FORMATS, LOG_FORMATS, AccessLogConfig, ListenerConfig, LogConfig, ProcessConfig
from tunnel.config.values import (
    default_of,
    one_of,
    parse_duration,
    parse_limit,
    parse_name,
    parse_positive_duration,
    parse_uint32,
    parse_workers,
)
from tunnel.errors import ConfigError

CONNECT_TIMEOUT = option(
    "connect-timeout",
    "Maximum time for handshake and dial",
    parse_positive_duration,
    default_of(ListenerConfig, "connect_timeout"),
    placeholder="TIME",
)
CLOSE_TIMEOUT = option(
    "close-timeout",
    "Maximum idle time after one direction is closed",
    parse_limit,
    default_of(ListenerConfig, "close_timeout"),
    zero="immediate close",
    placeholder="TIME",
)
MAX_LIFETIME = option(
    "max-conn-lifetime",
    "Maximum lifetime of a connection",
    parse_limit,
    default_of(ListenerConfig, "max_conn_lifetime"),
    zero="no limit",
    placeholder="TIME",
)
MAX_CONNS = option(
    "max-concurrent-conns",
    "Maximum number of open connections; further connections wait to be accepted",
    parse_uint32,
    default_of(ListenerConfig, "max_concurrent_conns"),
    zero="no limit",
    placeholder="N",
)
MAX_HANDSHAKES = option(
    "max-handshakes",
    "Maximum number of TLS handshakes in progress",
    parse_uint32,
    default_of(ListenerConfig, "max_handshakes"),
    zero="no limit",
    placeholder="N",
)
SHUTDOWN_TIMEOUT = option(
    "shutdown-timeout",
    "Maximum time for the drain of open connections after SIGTERM or SIGINT",
    parse_duration,
    default_of(ProcessConfig, "shutdown_timeout"),
    placeholder="TIME",
)
SHUTDOWN_DELAY = option(
    "shutdown-delay",
    "Time to report not ready and still accept connections after SIGTERM or SIGINT, before the drain",
    parse_limit,
    default_of(ProcessConfig, "shutdown_delay"),
    placeholder="TIME",
)
WORKERS = option(
    "workers",
    "Number of processes that serve connections, each on a core of its own; auto is one for each usable core",
    parse_workers,
    default_of(ProcessConfig, "workers"),
    placeholder="N",
)
QUIET = repeated(
    "quiet",
    "Omit lines from the log: conns, conn-errs, handshake-errs, or all; repeatable",
    one_of("", "all", "conns", "handshake-errs", "conn-errs"),
    placeholder="WHAT",
)
LOG_FORMAT = option(
    "log-format",
    "Format of the log: text, as ghostunnel's, or json, one object per line",
    one_of(*LOG_FORMATS),
    default_of(LogConfig, "format"),
    placeholder="FORMAT",
)
ACCESS_LOG = option(
    "access-log",
    "Write one event per connection at its end, also if it was refused or failed, in place of the lines about connections: "
    "text (name=value), json, or off",
    one_of(*ACCESS_FORMATS),
    default_of(AccessLogConfig, "format"),
    placeholder="FORMAT",
)
ACCESS_TARGET = option(
    "access-log-target",
    "Where the access log is written: log (where the log is), stdout, stderr, syslog or a file, which is opened again after it "
    "was moved and at SIGHUP",
    parse_name,
    default_of(AccessLogConfig, "target"),
    placeholder="TARGET",
)
ACCESS_START = switch("access-log-start", "Also write an event to the access log when a connection is forwarded")
SYSLOG = switch("syslog", "Log to the local syslog instead of standard output")
DISABLE_LANDLOCK = switch("disable-landlock", "Do not confine the process to the files and ports that the flags name")
USE_LANDLOCK = switch("use-landlock", "Accepted and ignored: the process is confined by default", hidden=True)

LIMITS = Group(
    "Limits",
    (CONNECT_TIMEOUT, CLOSE_TIMEOUT, MAX_LIFETIME, MAX_CONNS, MAX_HANDSHAKES, SHUTDOWN_DELAY, SHUTDOWN_TIMEOUT, *tls.FLAGS),
)
PROCESS = Group(
    "Process", (WORKERS, QUIET, SYSLOG, LOG_FORMAT, ACCESS_LOG, ACCESS_TARGET, ACCESS_START, DISABLE_LANDLOCK, USE_LANDLOCK)
)


def build_log(arguments: Arguments) -> LogConfig:
    """The configuration of the log; raises ConfigError."""
    access = AccessLogConfig(arguments[ACCESS_LOG], arguments[ACCESS_TARGET], arguments[ACCESS_START])
    if access.format == "off" and (access.has_start or access.target != default_of(AccessLogConfig, "target")):
        flag = ACCESS_START if access.has_start else ACCESS_TARGET
        raise ConfigError(f"--{flag.name} needs --{ACCESS_LOG.name} text or json")
    return LogConfig(arguments[QUIET], arguments[SYSLOG], arguments[LOG_FORMAT], access)
