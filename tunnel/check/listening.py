"""Checks whether an address can be listened on.

A port is bound and released, and never listened on: no connection to another process is accepted here. No file is created or
removed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from functools import partial
from pathlib import Path
from typing import assert_never

from tunnel.check.finding import Finding, ok, problem, skipped, warning
from tunnel.check.preflight import within
from tunnel.check.sockets import absolute
from tunnel.errors import TargetError, describe_os_error
from tunnel.net.address import LaunchdAddress, ListenAddress, SystemdAddress, TcpAddress, UnixAddress
from tunnel.net.holders import describe_holders, find_shared_port
from tunnel.net.listen import bind_tcp, find_replaceable, first_free_port, is_stale_socket
from tunnel.net.sockets import port_number

_LOOK_UP = 5.0  # seconds for a name


def examine_listener(name: str, address: ListenAddress) -> Finding:
    """Return whether this process can listen there now; `name` is that of the flag."""
    match address:
        case TcpAddress():
            return _examine_port(name, address)
        case UnixAddress():
            return _examine_path(name, address)
        case SystemdAddress():
            return skipped(name, f"{address}: the service manager passes it at the start")
        case LaunchdAddress():
            return problem(name, f"{address}: launchd exists on macOS only", "use systemd:NAME")
        case _:
            assert_never(address)


def _examine_port(name: str, address: TcpAddress) -> Finding:
    try:
        with within(_LOOK_UP, partial(bind_tcp, address)) as sock:
            sharing = find_shared_port(sock, {}) if address.port != "0" else None
    except TargetError as error:
        return problem(name, str(error), f"set --{name} to an address of this machine")
    except OSError as error:
        return _explain(name, address, error)
    if sharing is not None:
        detail = f"{address} is in use by {sharing.holders} with SO_REUSEPORT: processes of its user share the port"
        return warning(name, detail, "expected during a restart; else choose another port: each process gets some connections")
    return ok(name, f"{address} can be bound")


def _explain(name: str, address: TcpAddress, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        who = describe_holders(port_number(address.port)) or "another process"
        return problem(name, f"{address} is in use by {who}", "stop it, or choose another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        detail = f"{address}: no permission for ports below {first_free_port()}"
        return problem(
            name, detail, "choose a higher port, grant CAP_NET_BIND_SERVICE, or use socket activation (systemd:NAME)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return problem(
            name, f"{address} is not an address of this machine", f"set --{name} to one (see ip address), or to :PORT for all"
        )
    return problem(name, f"{address}: {describe_os_error(error)}", f"set --{name} to another address")


def _examine_path(name: str, address: UnixAddress) -> Finding:
    path = address.path
    if path.startswith("@"):
        return _examine_abstract(name, address)
    directory = os.path.dirname(absolute(path)) or os.curdir
    if not os.path.isdir(directory):
        return problem(name, f"directory {directory} does not exist", "create it for this user")
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        return problem(name, f"this user has no write permission in {directory}", "grant it, or choose another directory")
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return ok(name, f"{address} can be created")
    except OSError as error:
        return problem(name, f"{address}: {describe_os_error(error)}", "choose another path")
    if not is_socket:
        return problem(name, f"{address} exists and is not a socket", "choose another path")
    if (pid := find_replaceable(Path(path))) is not None:
        detail = f"{address} is in use by {f'pid {pid}' if pid else 'a process'} of this program: a new process takes it over"
        return warning(name, detail, "expected during a replacement; else choose another path")
    if is_stale_socket(path):
        return ok(name, f"{address} is a stale socket and will be replaced")
    return problem(name, f"{address} is in use by another process", "stop it, or choose another path")


def _examine_abstract(name: str, address: UnixAddress) -> Finding:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind("\0" + address.path[1:])
        except OSError as error:
            detail = f"{address}: {describe_os_error(error)}"
            return problem(name, detail, "stop the process that uses it, or choose another name")
    return ok(name, f"{address} can be bound")
