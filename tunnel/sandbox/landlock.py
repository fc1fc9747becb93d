"""Landlock: confinement of this process to a ruleset (landlock(7)).

A restriction applies to the calling thread and to the threads and processes that it starts later, and cannot be undone. So it
is set up while there is only one thread.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import stat
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from tunnel.errors import describe_os_error
from tunnel.sandbox.rules import Needs, Ruleset, build_ruleset, interpreter_paths

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_SET_NO_NEW_PRIVS = 38  # prctl(2); required unless the process is root
_PATH_BENEATH, _NET_PORT = 1, 2
_VERSION_FLAG = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_SOCK = 1 << 4, 1 << 5, 1 << 9
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # the others apply to directories only
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_SOCKET_DIRECTORY: Final = _REMOVE_DIR | _REMOVE_FILE | _MAKE_SOCK
_BIND, _CONNECT = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1  # scopes: access to processes outside of the domain
FIRST_WITH_SCOPES = 6
_FIRST_WITH_NET = 4
# The rights that each ABI version added; a kernel cannot deny a right that it does not have.
_FS_RIGHTS = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_NET_RIGHTS = {_FIRST_WITH_NET: _BIND | _CONNECT}
_ABSENT = {errno.ENOSYS, errno.EOPNOTSUPP}  # not built in, or disabled at boot

_HOME = str(Path(__file__).parents[2])  # the directory that contains this package; imports list it
_LIBRARIES = ("trio", "cryptography", "grpc")  # parts of them are imported late


class Kernel(Protocol):
    """The Landlock system calls; each raises OSError."""

    def thread_count(self) -> int:
        """Return the number of threads of this process."""

    def version(self) -> int:
        """Return the ABI version of the kernel."""

    def create_ruleset(self, fs_rights: int, net_rights: int, scopes: int) -> int:
        """Return the descriptor of a new ruleset that handles these rights and scopes."""

    def allow_path(self, ruleset: int, rights: int, path: int) -> None:
        """Allow rights on the file of a descriptor and below it."""

    def allow_port(self, ruleset: int, rights: int, port: int) -> None:
        """Allow rights on a TCP port."""

    def restrict(self, ruleset: int) -> None:
        """Restrict this thread, and what it starts later, to the ruleset."""


class Linux:
    """The system calls of the running kernel."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def thread_count(self) -> int:
        return len(os.listdir("/proc/self/task"))

    def version(self) -> int:
        return self._call(_CREATE_RULESET, None, 0, _VERSION_FLAG)

    def create_ruleset(self, fs_rights: int, net_rights: int, scopes: int) -> int:
        attributes = struct.pack("=QQQ", fs_rights, net_rights, scopes)  # an older kernel requires unknown fields to be 0
        return self._call(_CREATE_RULESET, attributes, len(attributes), 0)

    def allow_path(self, ruleset: int, rights: int, path: int) -> None:
        self._call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, path), 0)

    def allow_port(self, ruleset: int, rights: int, port: int) -> None:
        self._call(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", rights, port), 0)

    def restrict(self, ruleset: int) -> None:
        self._check(self._libc.prctl(_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))))
        self._call(_RESTRICT_SELF, ruleset, 0)

    def _call(self, number: int, *arguments: int | bytes | None) -> int:
        # Each argument is a full register: a C int would leave its upper half undefined.
        values = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
        return self._check(self._libc.syscall(ctypes.c_long(number), *values))

    def _check(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def apply_landlock(
    needs: Needs, environ: Mapping[str, str], write: Callable[[str], None], kernel: Kernel | None = None
) -> None:
    """Restrict this process to what it needs, as far as the kernel supports it; a failure is logged and not fatal."""
    write("setting up landlock rules to limit process privileges")
    try:
        version = restrict(build_ruleset(needs, environ, program_paths()), kernel or Linux())
    except OSError as error:
        problem = "not supported by the kernel" if error.errno in _ABSENT else describe_os_error(error)
        write(f"warning: unable to set up landlock: {problem}")
        return
    if version < _FIRST_WITH_NET:
        write("note: kernel does not support landlock net rules, sandboxing will be limited")


def restrict(rules: Ruleset, kernel: Kernel) -> int:
    """Restrict this process to `rules` and return the ABI version; raises OSError, and then nothing is restricted."""
    threads = kernel.thread_count()
    if threads != 1:
        raise OSError(errno.EBUSY, f"{threads} threads are running, only one would be restricted")
    version = kernel.version()
    fs_rights = _supported_rights(_FS_RIGHTS, version)
    net_rights = 0 if rules.is_open else _supported_rights(_NET_RIGHTS, version)
    if rules.connect_ports is None:
        net_rights &= ~_CONNECT
    ruleset = kernel.create_ruleset(fs_rights, net_rights, _scopes(rules) if version >= FIRST_WITH_SCOPES else 0)
    try:
        _allow_paths(kernel, ruleset, rules.readable, _READ)
        _allow_paths(kernel, ruleset, rules.writable, fs_rights)
        _allow_paths(kernel, ruleset, rules.socket_directories, _SOCKET_DIRECTORY)
        _allow_paths(kernel, ruleset, (_HOME,), _READ_DIR)  # listing only: it may be a source checkout
        if rules.is_open:
            _allow_paths(
                kernel, ruleset, ("/",), _READ_FILE | _READ_DIR | _MAKE_SOCK | _REMOVE_FILE
            )  # rename(2) too needs both
        if net_rights:
            _allow_ports(kernel, ruleset, rules)
        kernel.restrict(ruleset)
    finally:
        os.close(ruleset)
    return version


def program_paths() -> list[str]:
    """Return the directories of this interpreter, this package and its libraries."""
    packages = [Path(__file__).parents[1], Path(os.path.realpath(sys.executable)).parent]
    for name in _LIBRARIES:
        with suppress(ValueError):  # a module without a spec
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None:
                packages.append(Path(spec.origin).parents[1])
    here = ""
    with suppress(OSError):  # the current directory may have been removed
        here = os.getcwd()
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    return interpreter_paths(prefixes, sys.path, map(str, packages), os.path.expanduser("~"), here)


def explain_denial(error: BaseException | None) -> str:
    """Return advice to append to `error` if Landlock denied the file, else ""."""
    while error is not None and not isinstance(error, PermissionError):
        error = error.__cause__
    if error is None or not isinstance(error.filename, str | bytes):
        return ""
    path = os.fsdecode(error.filename)
    if not os.access(path, os.R_OK, effective_ids=True):  # the mode denies access too; access(2) ignores Landlock
        return ""
    return (
        f"; Landlock denies {os.path.realpath(path)!a}, which was not part of the configuration at start: restart to allow it, "
        "keep the file in a directory of its own, or use --disable-landlock"
    )


def _scopes(rules: Ruleset) -> int:
    return (0 if rules.may_dial_abstract else _ABSTRACT_SOCKETS) | (0 if rules.may_signal_others else _SIGNALS)


def _supported_rights(rights: Mapping[int, int], version: int) -> int:
    return sum(bits for first, bits in rights.items() if first <= version)


def _allow_paths(kernel: Kernel, ruleset: int, paths: tuple[str, ...], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # a path that is not accessible now is not needed
        try:
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            applicable = rights if is_directory else rights & _FILE_RIGHTS
            if applicable:
                kernel.allow_path(ruleset, applicable, descriptor)
        finally:
            os.close(descriptor)


def _allow_ports(kernel: Kernel, ruleset: int, rules: Ruleset) -> None:
    for right, ports in ((_BIND, rules.bind_ports), (_CONNECT, rules.connect_ports)):
        for port in ports or ():
            kernel.allow_port(ruleset, right, port)
