"""Checks whether a Unix socket can be reached; the first obstacle on its path is the finding."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.check.workload_attributes import group_name, user_name
from tunnel.errors import describe_os_error

_CONNECT = 5.0  # seconds
_SELINUX = Path("/sys/fs/selinux/enforce")
_MOUNTS = Path("/proc/self/mountinfo")
_SHOWN = 4


def examine_socket(name: str, path: str, owner: str, *, mounts: Path = _MOUNTS) -> Finding:
    """Return whether this process can connect to `path`; `owner` describes the process that should listen there."""
    if path.startswith("@"):
        return _connect(name, path, owner, mounts)
    whole = absolute(path)
    return _find_obstacle(name, whole, owner) or _connect(name, whole, owner, mounts)


def absolute(path: str) -> str:
    """Return the absolute path; the path itself if the working directory was deleted."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        return path


def _find_obstacle(name: str, path: str, owner: str) -> Finding | None:
    for directory in reversed(Path(path).parents):
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            return problem(name, f"directory {directory} does not exist", f"start {owner}, or mount its directory here")
        except OSError as error:
            return problem(name, f"{directory}: {describe_os_error(error)}", "check that directory")
        if not stat.S_ISDIR(found.st_mode):
            return problem(name, f"{directory} is not a directory", "correct the path")
        if not os.access(directory, os.X_OK, effective_ids=True):
            return problem(name, f"directory {_describe_denial(str(directory), found)}", _grant("search permission (x)", found))
    return _examine_file(name, path, owner)


def _examine_file(name: str, path: str, owner: str) -> Finding | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return _missing(name, path, owner)
    except OSError as error:
        return problem(name, f"{path}: {describe_os_error(error)}", "check that file")
    if stat.S_ISDIR(found.st_mode):
        return problem(name, f"{path} is a directory", f"use the path of the socket in it{_list_sockets(path)}")
    if not stat.S_ISSOCK(found.st_mode):
        return problem(
            name, f"{path} is not a socket", f"use the path of the socket of {owner}{_list_sockets(os.path.dirname(path))}"
        )
    if not os.access(path, os.W_OK, effective_ids=True):
        return problem(name, f"socket {_describe_denial(path, found)}", _grant("write permission (w)", found))
    return None


def _missing(name: str, path: str, owner: str) -> Finding:
    if os.path.islink(path):
        return problem(name, f"{path} is a dangling link", f"start {owner}, or correct the link")
    directory = os.path.dirname(path)
    advice = f"start {owner}, or correct the name{_list_sockets(directory)}"
    return problem(name, f"{os.path.basename(path)} does not exist in {directory}", advice)


def _list_sockets(directory: str) -> str:
    """Return the sockets in a directory, as a part of advice."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if stat.S_ISSOCK(entry.stat().st_mode))
    except OSError:
        return ""
    return f"; sockets there: {', '.join(names[:_SHOWN])}" if names else ""


def _describe_denial(path: str, found: os.stat_result) -> str:
    who = f"uid {user_name(os.geteuid())}"
    return f"{path} denies access to {who}: owner {_owner(found)}, mode {stat.S_IMODE(found.st_mode):04o}"


def _owner(found: os.stat_result) -> str:
    return f"uid {user_name(found.st_uid)} gid {group_name(found.st_gid)}"


def _grant(right: str, found: os.stat_result) -> str:
    group = group_name(found.st_gid)
    return f"give this user {right}: by membership of gid {group}, or by the mode for others (fsGroup has no effect)"


def _connect(name: str, path: str, owner: str, mounts: Path) -> Finding:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_CONNECT)
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            return _explain(name, path, owner, error, is_mounted=_is_mount(path, mounts))
    if _is_mount(path, mounts):
        return warning(
            name,
            f"{path} accepts connections, but is mounted as a single file",
            f"mount its directory: a restart of {owner} creates a new socket",
        )
    return ok(name, f"{path} accepts connections")


def _explain(name: str, path: str, owner: str, error: OSError, *, is_mounted: bool) -> Finding:
    if error.errno == errno.ECONNREFUSED and is_mounted:
        detail = f"no process listens on {path}, which is mounted as a single file"
        return problem(name, detail, f"mount its directory: {owner} was restarted, and its new socket is not visible here")
    if error.errno == errno.ECONNREFUSED:
        return problem(name, f"no process listens on {path}: stale socket", f"start {owner}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return problem(name, f"{path}: file modes permit access, but the kernel denies it", _mandatory_access_advice())
    if isinstance(error, BlockingIOError | TimeoutError):
        return problem(
            name, f"{path}: a process listens but accepts no connection", f"restart {owner}: it hangs or is overloaded"
        )
    return problem(name, f"{path}: {describe_os_error(error)}", f"check the socket of {owner}")


def _mandatory_access_advice() -> str:
    try:
        is_enforcing = _SELINUX.read_text().strip() == "1"
    except OSError:
        is_enforcing = False
    if is_enforcing:
        return "SELinux is enforcing: see ausearch -m avc, and label the mount (CSI driver, or :z)"
    return "check AppArmor (dmesg), and whether a sandbox of the unit or container forbids Unix sockets"


def _is_mount(path: str, mounts: Path) -> bool:
    """Whether the file itself is mounted, not a directory above it (proc_pid_mountinfo(5), field 5)."""
    try:
        rows = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return False
    real = os.path.realpath(path).replace("\\", "\\134").replace(" ", "\\040")
    return any(len(row) > 4 and row[4] == real for row in rows)
