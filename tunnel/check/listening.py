"""Whether an address can be listened on.

Knows ports, Unix sockets and what a bind is refused for; must not know who would accept. A port is bound and given back, and
never listened on: no caller of another process ends here. No file is made or taken away.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from functools import partial
from pathlib import Path

from tunnel.check.finding import Finding, ok, problem, skipped, warning
from tunnel.check.limits import within
from tunnel.check.sockets import absolute
from tunnel.errors import TargetError, describe_os_error
from tunnel.net.address import LaunchdAddress, ListenAddress, SystemdAddress, TcpAddress, UnixAddress
from tunnel.net.holders import describe_holders, find_shared_port
from tunnel.net.listen import bind_tcp
from tunnel.net.sockets import port_number

_LOOK_UP = 5.0  # seconds for a name
_FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def examine_listener(name: str, address: ListenAddress) -> Finding:
    """Whether this process could listen there now; `name` is that of the flag."""
    match address:
        case TcpAddress():
            return _examine_port(name, address)
        case UnixAddress():
            return _examine_path(name, address)
        case SystemdAddress():
            return skipped(name, f"{address} is handed over by the service manager at the start")
        case LaunchdAddress():
            return problem(name, f"{address}: launchd is macOS's", "use systemd:NAME here")


def _examine_port(name: str, address: TcpAddress) -> Finding:
    try:
        with within(_LOOK_UP, partial(bind_tcp, address)) as sock:
            sharing = find_shared_port(sock, {}) if address.port != "0" else None
    except TargetError as error:
        return problem(name, str(error), f"give --{name} an address of this machine")
    except OSError as error:
        return _explain(name, address, error)
    if sharing is not None:
        seen = f"{address} is listened on by {sharing.holders}, which lets others of its user share the port"
        return warning(name, seen, "fine for a change of guard; else choose another port: each gets some of the connections")
    return ok(name, f"{address} can be bound")


def _explain(name: str, address: TcpAddress, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        who = describe_holders(port_number(address.port)) or "somebody"
        return problem(name, f"{address} is in use by {who}", "end that, or choose another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        seen = f"{address}: ports below {_first_free_port()} are for those who may"
        return problem(
            name, seen, "choose a higher one, or grant CAP_NET_BIND_SERVICE, or have systemd hand it over (systemd:NAME)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return problem(
            name, f"{address} is no address of this machine", f"give --{name} one that is (ip address), or :PORT for all"
        )
    return problem(name, f"{address}: {describe_os_error(error)}", f"give --{name} another address")


def _first_free_port() -> str:
    try:
        return _FIRST_FREE_PORT.read_text().strip()
    except OSError:
        return "1024"


def _examine_path(name: str, address: UnixAddress) -> Finding:
    path = address.path
    if path.startswith("@"):
        return _examine_abstract(name, address)
    directory = os.path.dirname(absolute(path)) or os.curdir
    if not os.path.isdir(directory):
        return problem(name, f"there is no directory {directory}", "make it, for this user")
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        return problem(name, f"{directory} is not to be written to by this user", "give it to this user, or choose another")
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return ok(name, f"{address} can be made")
    except OSError as error:
        return problem(name, f"{address}: {describe_os_error(error)}", "choose another path")
    if not is_socket:
        return problem(name, f"{address} is there already, and no socket", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            return ok(name, f"{address} was left behind by somebody who is gone, and will be replaced")
    return problem(name, f"{address} is in use by another process", "end that, or choose another path")


def _examine_abstract(name: str, address: UnixAddress) -> Finding:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind("\0" + address.path[1:])
        except OSError as error:
            return problem(name, f"{address}: {describe_os_error(error)}", "end who has it, or choose another name")
    return ok(name, f"{address} can be bound")
