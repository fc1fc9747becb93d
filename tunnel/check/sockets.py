"""Whether a Unix socket can be reached, and what stands in the way if not.

Knows directories, modes, mounts and connect; must not know who listens there. The first obstacle on the way is the one that
is told: behind it nothing can be seen.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.check.workload_attributes import group_name, user_name
from tunnel.errors import describe_os_error

_CONNECT = 5.0  # seconds; a Unix socket answers at once or not at all
_SELINUX = Path("/sys/fs/selinux/enforce")
_MOUNTS = Path("/proc/self/mountinfo")
_SHOWN = 4


def examine_socket(name: str, path: str, owner: str, *, mounts: Path = _MOUNTS) -> Finding:
    """Whether somebody listens at `path` for this process; `owner` is who should, in words."""
    if path.startswith("@"):
        return _connect(name, path, owner, mounts)
    whole = absolute(path)
    return _obstacle(name, whole, owner) or _connect(name, whole, owner, mounts)


def absolute(path: str) -> str:
    """The path from the root on; as it stands if the current directory is gone."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        return path


def _obstacle(name: str, path: str, owner: str) -> Finding | None:
    for directory in reversed(Path(path).parents):
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            return problem(name, f"there is no directory {directory}", f"start {owner}, or mount its directory here")
        except OSError as error:
            return problem(name, f"{directory}: {describe_os_error(error)}", "look at that directory")
        if not stat.S_ISDIR(found.st_mode):
            return problem(name, f"{directory} is no directory", "mend the path")
        if not os.access(directory, os.X_OK, effective_ids=True):
            return problem(name, f"directory {_denial(str(directory), found)}", _grant("pass through it (x)", found))
    return _bad_file(name, path, owner)


def _bad_file(name: str, path: str, owner: str) -> Finding | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return _missing(name, path, owner)
    except OSError as error:
        return problem(name, f"{path}: {describe_os_error(error)}", "look at that file")
    if stat.S_ISDIR(found.st_mode):
        return problem(name, f"{path} is a directory", f"name the socket in it{_neighbours(path)}")
    if not stat.S_ISSOCK(found.st_mode):
        return problem(name, f"{path} is no socket", f"name the socket of {owner}{_neighbours(os.path.dirname(path))}")
    if not os.access(path, os.W_OK, effective_ids=True):
        return problem(name, f"socket {_denial(path, found)}", _grant("write to it (w)", found))
    return None


def _missing(name: str, path: str, owner: str) -> Finding:
    if os.path.islink(path):
        return problem(name, f"{path} is a link that leads nowhere", f"start {owner}, or mend the link")
    directory = os.path.dirname(path)
    advice = f"start {owner}, or mend the name{_neighbours(directory)}"
    return problem(name, f"{directory} is there, and no {os.path.basename(path)} in it", advice)


def _neighbours(directory: str) -> str:
    """The sockets of a directory, for whoever has the wrong name."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if stat.S_ISSOCK(entry.stat().st_mode))
    except OSError:
        return ""
    return f"; sockets there: {', '.join(names[:_SHOWN])}" if names else ""


def _denial(path: str, found: os.stat_result) -> str:
    who = f"uid {user_name(os.geteuid())}"
    return f"{path} does not let {who} in: owner {_owner(found)}, mode {stat.S_IMODE(found.st_mode):04o}"


def _owner(found: os.stat_result) -> str:
    return f"uid {user_name(found.st_uid)} gid {group_name(found.st_gid)}"


def _grant(right: str, found: os.stat_result) -> str:
    return (
        f"let this user {right}: by joining gid {group_name(found.st_gid)}, or by a mode for others (fsGroup does nothing here)"
    )


def _connect(name: str, path: str, owner: str, mounts: Path) -> Finding:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_CONNECT)
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            return _refused(name, path, owner, error, is_mounted=_is_mount(path, mounts))
    if _is_mount(path, mounts):
        return warning(
            name,
            f"{path} answers, and is mounted as a single file",
            f"mount its directory: a restart of {owner} makes a new one",
        )
    return ok(name, f"{path} accepts connections")


def _refused(name: str, path: str, owner: str, error: OSError, *, is_mounted: bool) -> Finding:
    if error.errno == errno.ECONNREFUSED and is_mounted:
        seen = f"nobody listens on {path}, which is mounted as a single file"
        return problem(name, seen, f"mount its directory: {owner} was restarted, and its new socket does not show here")
    if error.errno == errno.ECONNREFUSED:
        return problem(name, f"nobody listens on {path}: it was left behind", f"start {owner}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return problem(name, f"{path}: its modes allow it, and the kernel does not", _mandatory())
    if isinstance(error, BlockingIOError | TimeoutError):
        return problem(name, f"{path}: somebody listens and accepts nobody", f"restart {owner}: it hangs, or is overloaded")
    return problem(name, f"{path}: {describe_os_error(error)}", f"look at the socket of {owner}")


def _mandatory() -> str:
    try:
        is_enforcing = _SELINUX.read_text().strip() == "1"
    except OSError:
        is_enforcing = False
    if is_enforcing:
        return "SELinux is enforcing here: see ausearch -m avc, and label the mount (the driver's, or :z)"
    return "look for AppArmor (dmesg), or for a sandbox of the unit or container that leaves Unix sockets out"


def _is_mount(path: str, mounts: Path) -> bool:
    """Whether the file itself is mounted, rather than a directory above it (proc_pid_mountinfo(5), field 5)."""
    try:
        rows = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return False
    real = os.path.realpath(path).replace("\\", "\\134").replace(" ", "\\040")
    return any(len(row) > 4 and row[4] == real for row in rows)
