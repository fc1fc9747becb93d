"""A configuration file from one of stunnel.

The result is never less strict: where stunnel does not verify a peer and we do, a note says so, and an option about
authentication without a counterpart makes the result invalid until the operator has replaced it.
"""

from __future__ import annotations

import re
from urllib.parse import quote as percent_encode

from tunnel.config.file.document import read_text
from tunnel.config.file.kinds import parse_label
from tunnel.config.file.problem import Problem
from tunnel.config.file.tables import NOT_CONVERTED
from tunnel.config.file.writer import TomlValue, encode_key, encode_table
from tunnel.config.stunnel.options import (
    HARMLESS,
    NEEDED,
    PROCESS_OPTIONS,
    StunnelFile,
    StunnelOption,
    StunnelService,
    parse_stunnel,
)
from tunnel.errors import ConfigError
from tunnel.ip_address import join_host_port
from tunnel.lazy_dataclass import dataclass, field
from tunnel.net.address import is_local

_OLD_VERSIONS = ("all", "sslv2", "sslv3", "tlsv1", "tlsv1.1", "tlsv1.2")
_SYSTEM_AUTHORITIES = "/etc/ssl/certs"
_KEYSTORE_SUFFIXES = (".p12", ".pfx")
Table = dict[str, TomlValue]


@dataclass(frozen=True, slots=True)
class Conversion:
    """The text of the new file, and the lines about options that were not converted: notes, and errors that need a decision."""

    text: str
    notes: tuple[Problem, ...]
    errors: tuple[Problem, ...]


def convert_stunnel(text: str, file_name: str) -> Conversion:
    """Convert the text of a configuration file of stunnel; every text is accepted."""
    return _Converter(file_name).convert(parse_stunnel(text))


@dataclass(slots=True)
class _Converter:
    """The tables of the new file, and the remarks, collected over the services."""

    file_name: str
    notes: list[Problem] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    identities: dict[str, Table] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def convert(self, file: StunnelFile) -> Conversion:
        for option in file.rest:
            self._error(option, "this line is no option")
        log = self._convert_process(file)
        listeners = [self._convert_service(service) for service in file.services]
        if not listeners:
            self.errors.append(Problem(self.file_name, 0, "", "no service"))
        errors = tuple(dict.fromkeys(self.errors))
        tables: list[tuple[str, Table]] = [
            ("", {NOT_CONVERTED: [str(error) for error in errors]} if errors else {}),
            ("[log]", log),
            *((f"[identity.{encode_key(name)}]", table) for name, table in self.identities.items()),
            *listeners,
        ]
        written = [encode_table(header, table) for header, table in tables if table or header.startswith("[identity")]
        return Conversion("\n".join(written), tuple(dict.fromkeys(self.notes)), errors)

    def _convert_process(self, file: StunnelFile) -> Table:
        log: Table = {}
        for option in file.process:
            if option.name.lower() == "syslog":
                log["syslog"] = option.value.lower() == "yes"
            else:
                self._note(option, PROCESS_OPTIONS[option.name.lower()])
        return {name: value for name, value in log.items() if value}

    def _convert_service(self, service: StunnelService) -> tuple[str, Table]:
        is_server = not service.is_on("client")
        table: Table = {"name": self._name(service)}
        self._convert_addresses(service, table, is_server=is_server)
        if is_server:
            self._convert_clients_check(service, table)
        else:
            self._convert_servers_check(service, table)
        self._convert_tls(service, table)
        self._convert_protocol(service, table, is_server=is_server)
        self._convert_times(service, table)
        table["identity"] = self._identity(service, table, is_server=is_server)
        self._report_others(service)
        return ("[[server]]" if is_server else "[[client]]"), table

    def _name(self, service: StunnelService) -> str:
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", service.name).strip("-._")[:50] or "service"
        name, number = base, 1
        while name in self.names:
            number += 1
            name = f"{base}-{number}"
        self.names.add(name)
        return parse_label(name)

    def _convert_addresses(self, service: StunnelService, table: Table, *, is_server: bool) -> None:
        accept, targets = service.last("accept"), service.all("connect")
        if accept is None or not targets:
            missing = "accept" if accept is None else "connect"
            self._error(StunnelOption(missing, "", service.line), "the service has no such option")
        table["listen"] = _convert_address(accept.value, "") if accept else ":0"
        found = [_convert_address(target.value, "localhost") for target in targets]
        table["target"] = found[0] if len(found) == 1 else found or "localhost:0"
        if service.is_on("delay"):
            table["skip-resolve"] = True
        self._permit_remote(service, table, is_server=is_server)

    def _permit_remote(self, service: StunnelService, table: Table, *, is_server: bool) -> None:
        name = "target" if is_server else "listen"
        value = table[name]
        if not all(is_local(str(address)) for address in (value if isinstance(value, list) else [value])):
            table[f"unsafe-{name}"] = True
            option = service.last("connect" if is_server else "accept")
            if option is not None:
                self._note(option, f"unsafe-{name}: plain connections of other machines are not encrypted", is_converted=True)

    def _convert_clients_check(self, service: StunnelService, table: Table) -> None:
        """Whether a server verifies its clients, and which ones it admits."""
        level = self._level(service)
        hosts = [{"allow": {"dns": option.value}} for option in service.all("checkHost")]
        addresses = [{"allow": {"ip": option.value}} for option in service.all("checkIP")]
        if level == 0:
            table["disable-authentication"] = True
            for option in (*service.all("checkHost"), *service.all("checkIP")):
                self._error(option, "without verifyChain the clients are not verified; decide which ones are admitted")
            return
        if not service.last("CAfile"):
            self._error(StunnelOption("CAfile", "", service.line), "the clients cannot be verified without it")
        table["access"] = [*hosts, *addresses] or [{"allow": "any"}]

    def _convert_servers_check(self, service: StunnelService, table: Table) -> None:
        """Which name a client verifies; its server is always verified."""
        if self._level(service) == 0:
            at = StunnelOption("verifyChain", "no", service.line)
            self._note(at, "the certificate and the host name of the server are verified now", is_converted=True)
        checks = [*service.all("checkHost"), *service.all("checkIP")]
        sni = service.last("sni")
        for other in checks[1:]:
            self._error(other, "one name of the server can be verified")
        if sni and checks and sni.value != checks[0].value:
            self._error(sni, "the same name is sent (SNI) and verified: set override-server-name")
        name = checks[0].value if checks else sni.value if sni else ""
        if name and name != str(table["target"]).rpartition(":")[0]:
            table["override-server-name"] = name
        if not name and self._level(service):
            at = StunnelOption("checkHost", "", service.line)
            self._note(at, "the host name of the server is verified too", is_converted=True)

    def _level(self, service: StunnelService) -> int:
        """0 if the peer is not verified, 2 if its certification path is."""
        level = 2 if service.is_on("verifyChain") or service.is_on("verifyPeer") else 0
        verify, required = service.last("verify"), service.last("requireCert")
        if verify is None:
            if required and service.is_on("requireCert") and not level:
                self._error(required, "a certificate that is not verified proves nothing: decide about verifyChain")
            return level
        if verify.value == "1":
            self._note(verify, "every peer must present a certificate now", is_converted=True)
        elif verify.value not in ("0", "2"):
            self._error(verify, NEEDED["verifypeer"])
        return level if verify.value == "0" else 2

    def _convert_tls(self, service: StunnelService, table: Table) -> None:
        exact, highest, lowest = (service.last(name) for name in ("sslVersion", "sslVersionMax", "sslVersionMin"))
        limit = exact if exact and exact.value.lower() != "all" else highest
        if limit and limit.value.lower() in _OLD_VERSIONS[1:]:
            table["max-tls-version"] = "TLS1.2"
            if limit.value.lower() != "tlsv1.2":
                self._note(limit, "the lowest version is TLS 1.2", is_converted=True)
        for least in (exact, lowest):
            if least and least.value.lower() not in _OLD_VERSIONS:
                self._error(least, "the lowest version is TLS 1.2")
        for option in service.all("options"):
            self._convert_flag(option, table)

    def _convert_flag(self, option: StunnelOption, table: Table) -> None:
        flag = option.value.upper()
        if flag == "NO_TLSV1.3":
            table["max-tls-version"] = "TLS1.2"
        elif flag == "NO_TLSV1.2":
            self._error(option, "the lowest version is TLS 1.2")
        elif flag not in ("NO_SSLV2", "NO_SSLV3", "NO_TLSV1", "NO_TLSV1.1", "NO_TICKET", "NO_RENEGOTIATION"):
            self._note(option, "the options of OpenSSL are fixed")

    def _convert_protocol(self, service: StunnelService, table: Table, *, is_server: bool) -> None:
        protocol, host = service.last("protocol"), service.last("protocolHost")
        user, password = service.text("protocolUsername"), service.text("protocolPassword")
        method = service.text("protocolAuthentication").lower()
        if protocol and protocol.value.lower() == "proxy" and is_server:
            table["proxy-protocol-mode"] = "conn"
            self._note(protocol, "version 2 of the PROXY protocol is sent instead of version 1", is_converted=True)
        elif protocol and protocol.value.lower() == "connect" and not is_server and host:
            credentials = f"{percent_encode(user, safe='')}:{percent_encode(password, safe='')}@" if user or password else ""
            for other in service.all("connect")[1:]:
                self._error(other, "a client has one proxy")
            table["proxy"] = f"http://{credentials}{_convert_address(service.text('connect'), 'localhost')}"
            table["target"] = _convert_address(host.value, "localhost")
            if method not in ("", "basic"):
                self._note(protocol, "the proxy must accept basic authentication", is_converted=True)
        elif protocol:
            self._error(protocol, "TLS is used from the first byte; the negotiation of this protocol is not supported")

    def _convert_times(self, service: StunnelService, table: Table) -> None:
        for name, key in (("TIMEOUTconnect", "connect-timeout"), ("TIMEOUTclose", "close-timeout")):
            option = service.last(name)
            if option and option.value.isascii() and option.value.isdigit() and len(option.value) < 10 and int(option.value):
                table[key] = f"{int(option.value)}s"
            elif option:
                self._note(option, f"set {key}, where 0 has another meaning")

    def _identity(self, service: StunnelService, table: Table, *, is_server: bool) -> str:
        """The name of the service's identity, which services with the same files share."""
        cert, key, crl = service.text("cert"), service.text("key"), service.text("CRLfile")
        found: Table = {}
        if cert.lower().endswith(_KEYSTORE_SUFFIXES):
            found["keystore"] = cert
        elif cert:
            found = {"cert": cert, "key": key or cert}
        elif is_server:
            self._error(StunnelOption("cert", "", service.line), "a server needs a certificate")
        else:
            table["disable-authentication"] = True
        folder = service.last("CApath")
        if service.text("CAfile"):
            found["ca"] = service.text("CAfile")
        elif folder and folder.value.rstrip("/") == _SYSTEM_AUTHORITIES and not is_server:
            self._note(folder, "the system's CA certificates are used", is_converted=True)
            folder = None
        if folder:
            self._error(folder, NEEDED["capath"])
        if crl:
            found["crl"] = [crl]
        for name, known in self.identities.items():
            if known == found:
                return name
        name = "default" if not self.identities else f"default-{len(self.identities) + 1}"
        self.identities[name] = found
        return name

    def _report_others(self, service: StunnelService) -> None:
        """Report each option that no step above has asked for."""
        if not service.is_on("client"):
            for option in service.all("sni"):
                self._error(option, "several servers on one port are not supported")
        for name, options in service.options.items():
            for option in options if name not in service.used or name == "verifypeer" else ():
                if name in NEEDED and option.value.lower() != "no":
                    self._error(option, NEEDED[name])
                elif name in HARMLESS or name in PROCESS_OPTIONS:
                    self._note(option, {**PROCESS_OPTIONS, **HARMLESS}[name])
                elif name not in NEEDED:
                    self._error(option, "unknown option")

    def _note(self, option: StunnelOption, text: str, *, is_converted: bool = False) -> None:
        self.notes.append(self._problem(option, text if is_converted else f"not converted: {text}"))

    def _error(self, option: StunnelOption, text: str) -> None:
        self.errors.append(self._problem(option, f"not converted: {text}"))

    def _problem(self, option: StunnelOption, text: str) -> Problem:
        shown = option.name if not option.value or "password" in option.name.lower() else str(option)
        return Problem(self.file_name, option.line, shown, text)


def _convert_address(text: str, default_host: str) -> str:
    """`[HOST:]PORT` or the path of a socket as our address; it is judged when the new file is read."""
    if text.startswith("/"):
        return f"unix:{text}"
    host, _, port = text.rpartition(":")
    return join_host_port(host.removeprefix("[").removesuffix("]") or default_host, port)


def read_stunnel(path: str) -> str:
    """The text of a file; raises ConfigError."""
    try:
        return read_text(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
