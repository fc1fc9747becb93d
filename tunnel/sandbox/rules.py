"""Which files and ports a process needs, from what its flags and its environment name.

Knows where a system keeps what every program reads, and where an interpreter keeps itself; must not know how a kernel is told.
A path that does not exist is listed all the same: whoever tells the kernel leaves it out. Nothing is ever needed for a socket
that is dialled by its path, nor for one that was handed over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tunnel.net.address import Address, ListenAddress, TcpAddress, UnixAddress

WRITABLE = ("/dev", "/run", "/var/run", "/proc", "/tmp")  # noqa: S108  # ghostunnel's list
READABLE = (
    *("/sys", "/etc"),
    *("/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ"),
    # What /etc/ssl and /etc/pki lead to.
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/local/share/certs", "/usr/share/pki"),
    *("/var/lib/ca-certificates", "/usr/local/ssl", "/usr/local/etc/ssl"),
    # Shared libraries: name service plug-ins and extension modules are loaded late.
    *("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"),
    *("/usr/local/lib", "/usr/local/lib64", "/nix/store", "/gnu/store"),
)
_SYSTEM_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/localtime")  # may be links
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

    def joined(self, other: Needs) -> Needs:
        """What two need in one process."""
        return Needs(
            self.files + other.files,
            self.directories + other.directories,
            self.listens + other.listens,
            self.dials + other.dials,
            self.urls + other.urls,
        )


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What stays allowed: directories (or files) with all that is below them, and TCP ports."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    bind_ports: tuple[int, ...]
    connect_ports: tuple[int, ...]


def build_ruleset(
    needs: Needs,
    environ: Mapping[str, str],
    interpreter: Iterable[str],
    *,
    follow: Callable[[str], str] = os.path.realpath,
    find_service: Callable[[str, str], int] = socket.getservbyname,
) -> Ruleset:
    """Everything that `needs`, the environment and the interpreter's own directories amount to."""
    files = [*needs.files, *_SYSTEM_FILES, *(environ.get(name, "") for name in _FILES_IN_ENVIRONMENT)]
    listed = ":".join(environ.get(name, "") for name in _DIRECTORIES_IN_ENVIRONMENT).split(":")
    sockets = [address.path for address in needs.listens if isinstance(address, UnixAddress)]
    urls = [*needs.urls, *(environ.get(name, "") for name in _PROXIES_IN_ENVIRONMENT)]
    connect = {_DNS, *_ports(needs.dials, find_service), *_url_ports(urls)}
    return Ruleset(
        readable=_paths([*READABLE, *interpreter, *_parents(files, follow), *listed]),
        writable=_paths([*WRITABLE, *needs.directories, *_parents((path for path in sockets if path[0] != "@"), follow)]),
        bind_ports=tuple(sorted(set(_ports(needs.listens, find_service)))),
        connect_ports=tuple(sorted(connect)),
    )


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


def _parents(files: Iterable[str], follow: Callable[[str], str]) -> Iterator[str]:
    """The directory of each file, and of what it is a link to: a reload may find another file there."""
    for path in files:
        if path:
            whole = os.path.abspath(path)
            yield os.path.dirname(whole)
            yield os.path.dirname(follow(whole))


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
