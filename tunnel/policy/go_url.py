"""A URL parser with the rules and fields of Go's `net/url`, which policies see."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import quote_from_bytes, unquote_to_bytes

from tunnel.errors import WireError, WireFault
from tunnel.ip_address import parse_ip_address

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>\"]*")  # crypto/x509 allows no escape in it
_PORT = re.compile(r"(:[0-9]*)?")
_USER = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH_SAFE = "$&+,/:;=@"
_FRAGMENT_SAFE = "$&+,/:;=?@!()*"

Url = dict[str, object]


def parse_url(text: str) -> Url:
    """Return the fields of Go's `url.URL`; raises WireError for a URL that Go rejects."""
    if _CONTROL.search(text):
        raise _refused("a control character")
    main, _, fragment = text.partition("#")
    scheme, rest = _split_scheme(main)
    force = rest.endswith("?") and rest.count("?") == 1
    rest, _, query = rest.partition("?")
    url: Url = {"Scheme": scheme, "Opaque": "", "User": None, "Host": "", "Path": "", "Fragment": "", "RawQuery": query}
    url |= {"RawPath": "", "RawFragment": "", "ForceQuery": force, "OmitHost": False}
    url["Fragment"], url["RawFragment"] = _unescape(fragment, _FRAGMENT_SAFE)
    if scheme and not rest.startswith("/"):
        return url | {"Opaque": rest}
    if not scheme and ":" in rest.partition("/")[0]:
        raise _refused("a colon in its first path segment")
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        rest = slash + path
        url["User"], url["Host"] = _split_authority(authority)
    else:
        url["OmitHost"] = bool(scheme)
    url["Path"], url["RawPath"] = ("*", "") if main == "*" else _unescape(rest, _PATH_SAFE)
    return url


def _refused(why: str) -> WireError:
    return WireError(WireFault.MALFORMED, f"a URI SAN with {why}")


def _split_scheme(text: str) -> tuple[str, str]:
    if text.startswith(":"):
        raise _refused("an empty scheme")
    match = _SCHEME.fullmatch(text)
    return (match.group(1).lower(), match.group(2)) if match else ("", text)


def _split_authority(authority: str) -> tuple[dict[str, object] | None, str]:
    """Return the user, whose fields Go does not export, and the host with its port."""
    user, at, host = authority.rpartition("@")
    if not _USER.fullmatch(user) or _BAD_ESCAPE.search(user):
        raise _refused("invalid user information")
    return {} if at else None, _parse_host(host)


def _parse_host(host: str) -> str:
    literal, bracket, port = host.rpartition("]")
    if host.startswith("["):
        if not bracket or not isinstance(parse_ip_address(literal[1:]), IPv6Address):
            raise _refused("an invalid IPv6 address")
    elif ":" in host:
        port = host[host.rindex(":") :]
    else:
        port = ""
    if "[" in host[1:] or not _PORT.fullmatch(port):
        raise _refused("an invalid host or port")
    if not _HOST.fullmatch(host) or (host and "" in host.split(".")):
        raise _refused("an invalid domain")
    return host


def _unescape(text: str, safe: str) -> tuple[str, str]:
    """Return the unescaped text, and the original if it differs from the default escaping."""
    if _BAD_ESCAPE.search(text):
        raise _refused("an invalid escape")
    plain = unquote_to_bytes(text)
    return _text(plain), "" if quote_from_bytes(plain, safe) == text else text


def _text(data: bytes) -> str:
    """Return bytes as Go's JSON does: each byte that is not UTF-8 is replaced."""
    return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))
