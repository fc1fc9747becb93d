"""The files and ports that a process needs, from its flags and its environment.

Paths that do not exist are listed too, and skipped when the ruleset is applied. Dialling a Unix socket by its path, or using an
inherited socket, needs no rule.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from tunnel.lazy_dataclass import dataclass
from tunnel.net.address import Address, ListenAddress, TcpAddress, UnixAddress

WRITABLE = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
READABLE = (
    "/proc/self",
    # Read by the C library, OpenSSL and this program; the rest of /proc/sys is for administrators.
    *("/proc/cpuinfo", "/proc/filesystems", "/proc/meminfo", "/proc/stat", "/proc/version"),
    *("/proc/sys/crypto/fips_enabled", "/proc/sys/kernel/overflowuid", "/proc/sys/net/core/somaxconn"),
    "/proc/sys/vm/overcommit_memory",
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm"),
    *("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ"),
    # Certificates of the system and the configuration of OpenSSL, without the private keys next to them.
    *("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/ssl/openssl.cnf", "/etc/ca-certificates"),
    *(
        "/etc/pki/tls/certs",
        "/etc/pki/tls/cert.pem",
        "/etc/pki/tls/cacert.pem",
        "/etc/pki/tls/openssl.cnf",
        "/etc/pki/ca-trust",
    ),
    *("/etc/crypto-policies", "/usr/share/crypto-policies"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/local/share/certs", "/usr/share/pki"),
    *("/var/lib/ca-certificates", "/usr/local/ssl", "/usr/local/etc/ssl"),
    # Shared libraries: name service modules and extension modules are loaded late.
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
    *("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"),
    *("/usr/local/lib", "/usr/local/lib64", "/nix/store", "/gnu/store"),
    *("/etc/python3", f"/etc/python{sys.version_info.major}.{sys.version_info.minor}"),
)
# Allowed one by one, because their directory contains /etc/shadow; each may be a symbolic link.
_SYSTEM_FILES = (
    *(
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/host.conf",
        "/etc/nsswitch.conf",
        "/etc/gai.conf",
        "/etc/services",
        "/etc/protocols",
    ),
    *("/etc/passwd", "/etc/group", "/etc/localtime", "/etc/locale.alias"),
)
_ETC = "/etc"
_SHADOW = "/etc/shadow"
# Shared directories: a file of a flag in one of them is allowed without its directory.
SHARED = frozenset(
    (
        *("/", "/dev", "/etc", "/home", "/proc", "/run", "/sys", "/usr", "/var", "/var/lib", "/var/run"),
        *("/dev/shm", "/tmp", "/var/tmp"),  # noqa: S108  # nothing is created there
    )
)
_MEMORY = "/dev/shm"  # noqa: S108  # the policy evaluator creates its directory here
_FILES_IN_ENVIRONMENT = ("SSL_CERT_FILE",)
_DIRECTORIES_IN_ENVIRONMENT = ("SSL_CERT_DIR", "LD_LIBRARY_PATH")
_PROXIES_IN_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_DNS = 53
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Needs:
    """What the flags name. The kernel can restrict ports, but not hosts."""

    files: tuple[str, ...] = ()  # read at start and at each reload
    directories: tuple[str, ...] = ()  # written to; they must exist already
    listens: tuple[ListenAddress, ...] = ()
    dials: tuple[Address, ...] = ()
    urls: tuple[str, ...] = ()  # requested by HTTP
    private: tuple[str, ...] = ()  # private directories, removed at exit
    has_policy: bool = False  # evaluator processes run
    has_command: bool = False  # a command runs; its process was started before the confinement
    is_reconfigurable: bool = False  # a reload may name other files, sockets and ports
    dials_any_port: bool = False  # SRV records give the ports later

    def union(self, other: Needs) -> Needs:
        """Return the needs of both, for one process."""
        return Needs(
            self.files + other.files,
            self.directories + other.directories,
            self.listens + other.listens,
            self.dials + other.dials,
            self.urls + other.urls,
            self.private + other.private,
            self.has_policy or other.has_policy,
            self.has_command or other.has_command,
            self.is_reconfigurable or other.is_reconfigurable,
            self.dials_any_port or other.dials_any_port,
        )


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What is allowed: directories (or files) with everything below them, and TCP ports."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    socket_directories: tuple[str, ...]  # where sockets are created, and sockets and empty directories removed
    bind_ports: tuple[int, ...]
    connect_ports: tuple[int, ...] | None  # None for all
    may_signal_others: bool  # processes outside of this confinement
    may_dial_abstract: bool  # abstract sockets of such processes
    is_open: bool = False  # every file can be read, sockets can be created everywhere, and ports are not restricted


def build_ruleset(
    needs: Needs,
    environ: Mapping[str, str],
    interpreter: Iterable[str],
    *,
    follow: Callable[[str], str] = os.path.realpath,
    find_service: Callable[[str, str], int] = socket.getservbyname,
    reads_shadow: bool | None = None,
) -> Ruleset:
    """Return the ruleset for `needs`, the environment and the directories of the interpreter.

    `reads_shadow` is whether the process could read /etc/shadow without Landlock.
    """
    reads_shadow = can_read_shadow() if reads_shadow is None else reads_shadow
    files = [*needs.files, *(environ.get(name, "") for name in _FILES_IN_ENVIRONMENT)]
    listed = ":".join(environ.get(name, "") for name in _DIRECTORIES_IN_ENVIRONMENT).split(":")
    processes = ["/proc"] if needs.has_policy or needs.has_command or needs.is_reconfigurable else []
    urls = [*needs.urls, *(environ.get(name, "") for name in _PROXIES_IN_ENVIRONMENT)]
    connect = {_DNS, *_ports(needs.dials, find_service), *_url_ports(urls)}
    return Ruleset(
        readable=_paths(
            [*READABLE, *_etc(follow, reads_shadow), *processes, *interpreter, *_parents_of(files, follow), *listed]
        ),
        writable=_paths(
            [*WRITABLE, *needs.directories, *needs.private, *([_MEMORY] if needs.has_policy or needs.is_reconfigurable else [])]
        ),
        socket_directories=_paths(_socket_directories(needs, follow)),
        bind_ports=tuple(sorted(set(_ports(needs.listens, find_service)))),
        connect_ports=None if needs.dials_any_port else tuple(sorted(connect)),
        may_signal_others=needs.has_command,
        may_dial_abstract=needs.is_reconfigurable or _dials_abstract(needs, environ),
        is_open=needs.is_reconfigurable,
    )


def can_read_shadow() -> bool:
    """Return whether this process can read /etc/shadow, which usually means that it is root."""
    return os.access(_SHADOW, os.R_OK, effective_ids=True)


def _etc(follow: Callable[[str], str], reads_shadow: bool) -> Iterator[str]:
    """Yield the readable parts of /etc: only single files, not their replacements, if the process can read /etc/shadow."""
    yield from (() if reads_shadow else (_ETC,))
    yield from _SYSTEM_FILES
    yield from _parents_of(_SYSTEM_FILES, follow)


def _socket_directories(needs: Needs, follow: Callable[[str], str]) -> Iterator[str]:
    for address in needs.listens:
        if isinstance(address, UnixAddress) and not address.path.startswith("@"):
            yield from _parents(address.path, follow)
    yield from map(os.path.dirname, needs.private)


def _dials_abstract(needs: Needs, environ: Mapping[str, str]) -> bool:
    target_connected = [address.path for address in needs.dials if isinstance(address, UnixAddress)]
    return any(path.startswith("@") for path in (*target_connected, environ.get("NOTIFY_SOCKET", "")))


def interpreter_paths(
    prefixes: Iterable[str], search: Iterable[str], packages: Iterable[str], home: str, here: str
) -> list[str]:
    """Return the directories of modules, without the home and the current directory unless `packages` contains them.

    `prefixes` are those of the interpreter (`sys.prefix`), `search` is `sys.path`, `packages` are required directories.
    """
    paths = [os.path.join(prefix, part) for prefix in prefixes for part in ("bin", "lib", "lib64", "pyvenv.cfg")]
    private = [os.path.realpath(path) for path in (home, here) if path]
    found = [path for path in search if os.path.isabs(path)]  # other entries belong to import hooks
    paths += [path for path in found if not any(_contains(os.path.realpath(path), one) for one in private)]
    return [*paths, *packages]


def _contains(path: str, other: str) -> bool:
    return os.path.commonpath([path, other]) == path


def _parents(path: str, follow: Callable[[str], str]) -> tuple[str, str]:
    """Return the directory of a file, and that of the target if it is a symbolic link."""
    whole = os.path.abspath(path)
    return os.path.dirname(whole), os.path.dirname(follow(whole))


def _parents_of(files: Iterable[str], follow: Callable[[str], str]) -> Iterator[str]:
    """Yield the directories of each file, because a reload may find a new file there; in a shared directory only the file."""
    for path in filter(None, files):
        whole = os.path.abspath(path)
        for found, directory in zip((whole, follow(whole)), _parents(path, follow), strict=True):
            yield found if directory in SHARED else directory


def _paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({os.path.abspath(path) for path in paths if path}))


def _ports(addresses: Iterable[ListenAddress], find_service: Callable[[str, str], int]) -> Iterator[int]:
    """Yield the port of each TCP address; 0, which means a free port, is included."""
    for address in addresses:
        if isinstance(address, TcpAddress):
            if address.port.isascii() and address.port.isdigit():
                yield int(address.port)
                continue
            try:
                yield find_service(address.port, "tcp")
            except (OSError, UnicodeError):
                continue  # opening it reports the error


def _url_ports(urls: Iterable[str]) -> Iterator[int]:
    """Yield the port of each URL; an invalid URL is skipped."""
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}") if url else None
            port = parts and (parts.port or _PORTS.get(parts.scheme))
        except ValueError:
            continue
        if port:
            yield port
