"""The options of stunnel: their syntax, and what becomes of those without a counterpart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tunnel.lazy_dataclass import dataclass, field

_SECTION = re.compile(r"\[(.*)\]")
_OPTION = re.compile(r"([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*)")
_MAX_VALUE = 200  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class StunnelOption:
    """One line `NAME = VALUE`."""

    name: str
    value: str
    line: int

    def __str__(self) -> str:
        return f"{self.name} = {self.value[:_MAX_VALUE]}"


@dataclass(slots=True)
class StunnelService:
    """One `[service]`: its own options, and the global ones that it does not set itself."""

    name: str
    line: int
    options: dict[str, list[StunnelOption]] = field(default_factory=dict)  # by name in lower case
    used: set[str] = field(default_factory=set)

    def all(self, name: str) -> list[StunnelOption]:
        """Every line with this option, which is converted."""
        self.used.add(name.lower())
        return self.options.get(name.lower(), [])

    def last(self, name: str) -> StunnelOption | None:
        """The line that counts if an option can be given once."""
        found = self.all(name)
        return found[-1] if found else None

    def text(self, name: str) -> str:
        """The value of an option, "" if it is not given."""
        option = self.last(name)
        return option.value if option else ""

    def is_on(self, name: str) -> bool:
        """Whether the value is `yes`."""
        return self.text(name).lower() == "yes"


@dataclass(frozen=True, slots=True)
class StunnelFile:
    """A parsed file; `rest` are lines that are no option."""

    process: tuple[StunnelOption, ...]
    services: tuple[StunnelService, ...]
    rest: tuple[StunnelOption, ...]


# Of the whole process. The text says what to do instead.
PROCESS_OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("chroot", "setuid", "setgid"), "set it in the unit file or the container"),
    **dict.fromkeys(("foreground", "pid", "service"), "tunnel runs in the foreground"),
    **dict.fromkeys(("output", "log"), "the log is written to standard output, or to syslog"),
    **dict.fromkeys(("rndbytes", "rndfile", "rndoverwrite", "egd"), "the system's random numbers are used"),
    **dict.fromkeys(("fips", "provider", "providerparameter", "setproperties"), "set it for the OpenSSL of Python"),
    **dict.fromkeys(("iconactive", "iconerror", "iconidle", "taskbar"), "there is no user interface"),
    "compression": "TLS is never compressed",
}
# Of a service, without an effect on who can connect.
HARMLESS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("debug", "logid"), "the log has one level; quiet in [log] omits lines"),
    **dict.fromkeys(("ciphers", "ciphersuites", "curves", "groups", "securitylevel"), "only strong suites and groups are used"),
    **dict.fromkeys(("sessioncachesize", "sessioncachetimeout", "sessionresume", "sessiond"), "sessions are never resumed"),
    **dict.fromkeys(("ticketkeysecret", "ticketmacsecret"), "sessions are never resumed"),
    **dict.fromkeys(("renegotiation", "reset", "retry", "failover"), "the behaviour is fixed"),
    **dict.fromkeys(("socket", "stack", "pty", "protocolheader", "protocoldomain"), "there is no counterpart"),
    "local": "connections to the target have the address that the system selects",
    "transparent": "the target sees the address of the client only by proxy-protocol-mode",
    "timeoutidle": "idle connections stay open; max-conn-lifetime limits all connections",
    "timeoutbusy": "connect-timeout limits the whole handshake",
    "redirect": "connections that are not admitted are refused",
}
# Of a service: without them other peers are admitted, the identity is another one, or the service does not work.
NEEDED: Final[Mapping[str, str]] = {
    "verifypeer": "pin the public key instead: access = { spki-pins = [...] }",
    "capath": "write the CA certificates to one PEM file, and name it as ca",
    "crlpath": "name the revocation lists as crl",
    **dict.fromkeys(("ocsp", "ocspaia", "ocspflag", "ocspnonce", "ocsprequire"), "use crl, or short-lived certificates"),
    **dict.fromkeys(("pskidentity", "psksecrets"), "use certificates"),
    **dict.fromkeys(("engine", "enginectrl", "enginedefault", "engineid", "enginenum", "caengine"), "use keys in files"),
    "checkemail": "use another rule in access",
    "libwrap": "limit the sources by rules in access, or by a firewall",
    "ident": "use rules in access",
    "config": "it can change how peers are verified",
    **dict.fromkeys(("exec", "execargs"), "start the program by itself, and name its address as target"),
    "include": "convert the files of that directory together with this one",
}


def parse_stunnel(text: str) -> StunnelFile:
    """The options of a file; every text is accepted."""
    defaults: list[StunnelOption] = []
    services: list[StunnelService] = []
    rest: list[StunnelOption] = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in ";#":
            continue
        if section := _SECTION.fullmatch(line):
            services.append(StunnelService(section[1].strip(), number))
        elif found := _OPTION.fullmatch(line):
            option = StunnelOption(found[1], found[2].strip(), number)
            if services:
                services[-1].options.setdefault(option.name.lower(), []).append(option)
            else:
                defaults.append(option)
        else:
            rest.append(StunnelOption(line, "", number))
    return _share_defaults(defaults, services, rest)


def _share_defaults(defaults: list[StunnelOption], services: list[StunnelService], rest: list[StunnelOption]) -> StunnelFile:
    """Options before the first service hold for every service that does not set them."""
    process = [option for option in defaults if option.name.lower() in (*PROCESS_OPTIONS, "syslog")]
    shared: dict[str, list[StunnelOption]] = {}
    for option in defaults:
        if option not in process:
            shared.setdefault(option.name.lower(), []).append(option)
    if not services and shared:
        services = [StunnelService("stunnel", defaults[0].line)]  # a file for inetd
    for service in services:
        service.options = {**shared, **service.options}
    return StunnelFile(tuple(process), tuple(services), tuple(rest))
