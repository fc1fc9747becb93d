"""Which files and ports a process needs, from what its flags and its environment name.

Knows where a system keeps what every program reads, and where an interpreter keeps itself; must not know how a kernel is told.
A path that does not exist is listed all the same: whoever tells the kernel leaves it out. Nothing is ever needed for a socket
that is dialled by its path, nor for one that was handed over.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tunnel.net.address import Address, ListenAddress, TcpAddress, UnixAddress

WRITABLE = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
READABLE = (
    "/proc/self",
    # What the C library, OpenSSL and we ask the kernel for; the rest of /proc/sys is for administrators.
    *("/proc/cpuinfo", "/proc/filesystems", "/proc/meminfo", "/proc/stat", "/proc/version"),
    *("/proc/sys/crypto/fips_enabled", "/proc/sys/kernel/overflowuid", "/proc/sys/net/core/somaxconn"),
    "/proc/sys/vm/overcommit_memory",
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm"),
    *("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ"),
    # Certificates of the system and OpenSSL's configuration, without the private keys beside them.
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
    # Shared libraries: name service plug-ins and extension modules are loaded late.
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
    *("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"),
    *("/usr/local/lib", "/usr/local/lib64", "/nix/store", "/gnu/store"),
    *("/etc/python3", f"/etc/python{sys.version_info.major}.{sys.version_info.minor}"),
)
# Read one by one and not by their directory, which holds /etc/shadow; each may be a link to a directory of its own.
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
# Directories of everybody: of a file that a flag names in one of them, the file is allowed and nothing beside it.
SHARED = frozenset(
    (
        *("/", "/dev", "/etc", "/home", "/proc", "/run", "/sys", "/usr", "/var", "/var/lib", "/var/run"),
        *("/dev/shm", "/tmp", "/var/tmp"),  # noqa: S108  # nothing is made there
    )
)
_MEMORY = "/dev/shm"  # noqa: S108  # where the evaluator of a policy makes its directory
_FILES_IN_ENVIRONMENT = ("SSL_CERT_FILE",)
_DIRECTORIES_IN_ENVIRONMENT = ("SSL_CERT_DIR", "LD_LIBRARY_PATH")
_PROXIES_IN_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_DNS = 53
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Needs:
    """What the flags name. Ports are what the kernel can be told; whose they are, it cannot."""

    files: tuple[str, ...] = ()  # read now, and again at each reload
    directories: tuple[str, ...] = ()  # written to; they must exist by now
    listens: tuple[ListenAddress, ...] = ()
    dials: tuple[Address, ...] = ()
    urls: tuple[str, ...] = ()  # asked by HTTP
    private: tuple[str, ...] = ()  # directories of this process alone, which are removed at the end
    has_policy: bool = False  # evaluators run beside this process
    has_command: bool = False  # so does a command, whose process began before the confinement

    def joined(self, other: Needs) -> Needs:
        """What two need in one process."""
        return Needs(
            self.files + other.files,
            self.directories + other.directories,
            self.listens + other.listens,
            self.dials + other.dials,
            self.urls + other.urls,
            self.private + other.private,
            self.has_policy or other.has_policy,
            self.has_command or other.has_command,
        )


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What stays allowed: directories (or files) with all that is below them, and TCP ports."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    socket_places: tuple[str, ...]  # where sockets are made, and sockets and empty directories removed
    bind_ports: tuple[int, ...]
    connect_ports: tuple[int, ...]
    may_signal_others: bool  # processes that are not kept to these rules
    may_dial_abstract: bool  # sockets of such processes, by a name that is no path


def build_ruleset(
    needs: Needs,
    environ: Mapping[str, str],
    interpreter: Iterable[str],
    *,
    follow: Callable[[str], str] = os.path.realpath,
    find_service: Callable[[str, str], int] = socket.getservbyname,
    reads_shadow: bool | None = None,
) -> Ruleset:
    """Everything that `needs`, the environment and the interpreter's own directories amount to.

    `reads_shadow` says whether the process can read /etc/shadow otherwise.
    """
    reads_shadow = can_read_shadow() if reads_shadow is None else reads_shadow
    files = [*needs.files, *(environ.get(name, "") for name in _FILES_IN_ENVIRONMENT)]
    listed = ":".join(environ.get(name, "") for name in _DIRECTORIES_IN_ENVIRONMENT).split(":")
    processes = ["/proc"] if needs.has_policy or needs.has_command else []
    urls = [*needs.urls, *(environ.get(name, "") for name in _PROXIES_IN_ENVIRONMENT)]
    connect = {_DNS, *_ports(needs.dials, find_service), *_url_ports(urls)}
    return Ruleset(
        readable=_paths([*READABLE, *_etc(follow, reads_shadow), *processes, *interpreter, *_around(files, follow), *listed]),
        writable=_paths([*WRITABLE, *needs.directories, *needs.private, *([_MEMORY] if needs.has_policy else [])]),
        socket_places=_paths(_socket_places(needs, follow)),
        bind_ports=tuple(sorted(set(_ports(needs.listens, find_service)))),
        connect_ports=tuple(sorted(connect)),
        may_signal_others=needs.has_command,
        may_dial_abstract=_dials_abstract(needs, environ),
    )


def can_read_shadow() -> bool:
    """Whether the kernel would let this process read the passwords of the system: most often, whether it is root."""
    return os.access(_SHADOW, os.R_OK, effective_ids=True)


def _etc(follow: Callable[[str], str], reads_shadow: bool) -> Iterator[str]:
    """What is read of /etc: by a process that can read passwords only files by name, which are not found once replaced."""
    yield from (() if reads_shadow else (_ETC,))
    yield from _SYSTEM_FILES
    yield from _around(_SYSTEM_FILES, follow)


def _socket_places(needs: Needs, follow: Callable[[str], str]) -> Iterator[str]:
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
    """Where modules are loaded from; a user's home and the current directory are not, unless `packages` names them.

    `prefixes` are the interpreter's (`sys.prefix`), `search` is `sys.path`, `packages` the directories of what must be found.
    """
    paths = [os.path.join(prefix, part) for prefix in prefixes for part in ("bin", "lib", "lib64", "pyvenv.cfg")]
    private = [os.path.realpath(path) for path in (home, here) if path]
    found = [path for path in search if os.path.isabs(path)]  # what is no path belongs to a hook
    paths += [path for path in found if not any(_is_above(os.path.realpath(path), one) for one in private)]
    return [*paths, *packages]


def _is_above(path: str, other: str) -> bool:
    return os.path.commonpath([path, other]) == path


def _parents(path: str, follow: Callable[[str], str]) -> tuple[str, str]:
    """The directory of a file, and of what it is a link to."""
    whole = os.path.abspath(path)
    return os.path.dirname(whole), os.path.dirname(follow(whole))


def _around(files: Iterable[str], follow: Callable[[str], str]) -> Iterator[str]:
    """The directories of each file, since a reload may find another file there; of a shared directory the file alone."""
    for path in filter(None, files):
        whole = os.path.abspath(path)
        for found, directory in zip((whole, follow(whole)), _parents(path, follow), strict=True):
            yield found if directory in SHARED else directory


def _paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({os.path.abspath(path) for path in paths if path}))


def _ports(addresses: Iterable[ListenAddress], find_service: Callable[[str, str], int]) -> Iterator[int]:
    """The port of each TCP address; 0, which asks for a free one, is a port like any other here."""
    for address in addresses:
        if isinstance(address, TcpAddress):
            if address.port.isascii() and address.port.isdigit():
                yield int(address.port)
                continue
            try:
                yield find_service(address.port, "tcp")
            except (OSError, UnicodeError):
                continue  # whoever opens it will say so


def _url_ports(urls: Iterable[str]) -> Iterator[int]:
    """The port of each URL; one that cannot be read is for its user to refuse."""
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}") if url else None
            port = parts and (parts.port or _PORTS.get(parts.scheme))
        except ValueError:
            continue
        if port:
            yield port
