"""The configuration of a process as frozen values, with the only copy of each default.

Durations are in seconds; 0 means no limit. No repr contains a password.
A new value is a field here and a flag in `commands/proxy/`, which `commands/proxy/build.py` passes on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import Rule
from tunnel.config.headers import HttpHeader
from tunnel.errors import ConfigError
from tunnel.ip_address import IpNetwork, parse_ip_address
from tunnel.lazy_dataclass import dataclass, field, replace
from tunnel.log import Category
from tunnel.net.address import ListenAddress, StatusAddress, TargetAddress, TcpAddress
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.selection import Selection
from tunnel.wire.outbound import OutboundProxy
from tunnel.wire.proxy_v2 import HeaderMode

ACCESS_FORMATS = ("text", "json", "off")
ACCESS_TARGETS = ("log", "stdout", "stderr", "syslog")
LOG_FORMATS = ("text", "json")
INTERACTIVE_TIMEOUT = 15.0  # seconds to wait for an identity, for commands whose caller waits for the result


@dataclass(frozen=True, slots=True)
class WorkloadApi:
    """Identity and trust bundles from the SPIFFE Workload API."""

    endpoint: WorkloadEndpoint
    timeout: float = 600.0  # for the first identity; 0 for no limit
    selection: Selection = field(default_factory=Selection)

    def __str__(self) -> str:
        return "SPIFFE Workload API"


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """A PEM chain and a PEM key; both can be in one file."""

    cert: str
    key: str

    def __str__(self) -> str:
        return "cert/key files on disk"


@dataclass(frozen=True, slots=True)
class Keystore:
    """Chain and key in one file: PEM, PKCS#12, JKS or JCEKS."""

    path: str
    password: str = field(repr=False)
    password_file: str = ""  # from which the password was read; "" if it was given by itself

    def __str__(self) -> str:
        return "keystore file on disk"


@dataclass(frozen=True, slots=True)
class Acme:
    """A certificate from an ACME server (RFC 8555) for one name."""

    domain: str
    email: str
    directory_url: str  # "" for Let's Encrypt
    check_interval: float = 600.0
    challenge_port: int = 443

    def __str__(self) -> str:
        return "ACME server"


@dataclass(frozen=True, slots=True)
class NoIdentity:
    """No identity: a client that presents no certificate."""


Source = WorkloadApi | KeyFiles | Keystore | Acme | NoIdentity


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Options of the TLS protocol; the cipher suites of TLS 1.3 are fixed."""

    ciphers: str = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2, in OpenSSL's notation
    is_limited_to_tls12: bool = False
    protocols: tuple[str, ...] = ()  # application protocols (ALPN), the preferred one first


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """A Rego policy on disk and the query to evaluate."""

    path: str
    query: str


@dataclass(frozen=True, slots=True)
class Access:
    """The access rules, and whether peers present a certificate."""

    rules: tuple[Rule, ...]  # the first that matches decides; the policy is evaluated last
    pins: tuple[SpkiPin, ...] = ()
    policy: PolicyFiles | None = None
    is_mutual: bool = True  # else a client presents no certificate, and a server requests none
    trust_domains: tuple[TrustDomain, ...] | None = None  # accepted at all; None for every one with a trust bundle


@dataclass(frozen=True, slots=True)
class Status:
    """The status port."""

    address: StatusAddress
    has_pprof: bool = False
    has_shutdown: bool = False
    has_reload: bool = False
    allowed_hosts: tuple[str, ...] = ()  # names that a Host header can have, besides those of this machine
    has_ui: bool = False  # a page for web browsers


@dataclass(frozen=True, slots=True)
class HealthPort:
    """A plain HTTP port that serves `/livez` and `/readyz` only."""

    address: ListenAddress
    allowed_hosts: tuple[str, ...] = ()  # as those of the status port


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of the status port, and the targets of metric reports."""

    graphite: TcpAddress | None = None
    url: str = ""
    prefix: str = "ghostunnel"
    interval: float = 30.0
    ca_bundle: str = ""  # to verify the server of an https:// URL; "" for the system's CA certificates
    peers: int = 20  # most peers that have time series of their own at the status port; 0 for none

    def has_target(self) -> bool:
        """Whether metrics are reported anywhere."""
        return self.graphite is not None or bool(self.url)


@dataclass(frozen=True, slots=True)
class Revocation:
    """Certificate revocation lists; those of the Workload API are always used as well."""

    files: tuple[str, ...] = ()  # PEM or DER
    is_required: bool = True  # refuse a peer if the list of an issuer is missing or expired; else accept it


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """An identity source, and what peers are verified with; listeners with equal values share one source."""

    source: Source
    ca_bundle: str = ""  # a file; "" for the system's CA certificates
    revocation: Revocation = field(default_factory=Revocation)
    name: str = ""  # in the configuration file; "" on a command line


@dataclass(frozen=True, slots=True)
class ClosePolicy:
    """When an open connection is closed that is no longer wanted."""

    grace: float = 0.0  # seconds; 0 for at once, infinity for never


CLOSE = ClosePolicy()
KEEP = ClosePolicy(math.inf)


@dataclass(frozen=True, slots=True)
class Plaintext:
    """Plain TCP clients that a server accepts on the port of its TLS clients, during a migration."""

    sources: tuple[IpNetwork, ...] = ()  # empty for all
    silence: float = 1.0  # a client that has sent nothing for so many seconds is a plain one; 0 to wait for its first bytes


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Checks of the targets of a listener that has several."""

    interval: float = 5.0  # seconds; 0 to check only targets that have failed
    timeout: float = 2.0  # seconds for one check
    rise: int = 2  # successes in a row after which an unhealthy target is healthy
    fall: int = 3  # failures in a row after which a healthy target is unhealthy


@dataclass(frozen=True, slots=True)
class NameResolution:
    """How the names of targets are resolved."""

    cache_time: float = 5.0  # seconds for which addresses are used; 0 to ask for each connection
    dns_server: TcpAddress | None = None  # for SRV records; None for those of /etc/resolv.conf


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """The configuration of one listener: a server or a client."""

    name: str  # unique in the process
    is_server: bool
    listen: ListenAddress | None  # None: it carries one connection that is already open
    targets: tuple[TargetAddress, ...]
    identity: IdentityConfig
    access: Access
    server_name: str = ""  # to verify and to send; "" for the target's host
    tls: TlsOptions = field(default_factory=TlsOptions)
    header_mode: HeaderMode | None = None
    outbound: OutboundProxy | None = None
    connect_timeout: float = 10.0
    close_timeout: float = 60.0
    max_conn_lifetime: float = 0.0
    max_concurrent_conns: int = 0
    max_rate: float = 0.0  # new connections per second
    max_conns_per_peer: int = 0
    max_rate_per_peer: float = 0.0  # new connections of one peer per second
    max_handshakes: int = 512
    is_resolved_early: bool = True
    resolution: NameResolution = field(default_factory=NameResolution)
    health_check: HealthCheck = field(default_factory=HealthCheck)
    target_status: str = ""
    is_private: bool = False  # only processes of our own user can connect to the listener
    plaintext: Plaintext | None = None  # None to refuse plain TCP clients
    on_withdrawal: ClosePolicy = CLOSE  # for a peer that would not be admitted now
    closes_expired: bool = False  # close connections of peers whose certificate has expired
    closes_without_identity: bool = False  # close connections when our identity is withdrawn
    warnings: tuple[str, ...] = ()  # about a command line

    @property
    def has_peer_limits(self) -> bool:
        """Whether a server limits the connections of each peer."""
        return self.is_server and bool(self.max_conns_per_peer or self.max_rate_per_peer)

    @property
    def host(self) -> str:
        """The host name to verify; "" if there is none, or not the same one for all targets."""
        hosts = {self.host_of(target) for target in self.targets}
        return self.server_name or (hosts.pop() if len(hosts) == 1 else "")

    def host_of(self, target: TargetAddress) -> str:
        """The host name of the server at a target; "" if it has none."""
        return self.server_name or (target.host if isinstance(target, TcpAddress) else "")

    @property
    def target_name(self) -> str:
        """The targets as they are configured."""
        return ",".join(map(str, self.targets))

    def sni_for(self, target: TargetAddress) -> str:
        """The server name that a client sends to a target, "" for none (RFC 6066, section 3: no IP address)."""
        host = self.host_of(target)
        if self.is_server or parse_ip_address(host.removeprefix("[").removesuffix("]")) is not None:
            return ""
        return host.rstrip(".")  # the dot marks a name as absolute for the resolver only

    @property
    def mode(self) -> str:
        """`server` or `client`."""
        return "server" if self.is_server else "client"


def direction_of(*, is_server: bool) -> str:
    """The direction of the connections of a listener, in access log, metrics and traces: a server is for the network's."""
    return "inbound" if is_server else "outbound"


@dataclass(frozen=True, slots=True)
class Monitor:
    """A status port, a health port and metric reports."""

    status: Status | None = None
    metrics: Metrics = field(default_factory=Metrics)
    listeners: tuple[str, ...] = ()  # the names of those that it is about; empty for all
    health: HealthPort | None = None

    @property
    def has_metrics(self) -> bool:
        """Whether metrics are shown or reported anywhere."""
        return self.status is not None or self.metrics.has_target()

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The addresses of its ports."""
        status = (self.status.address.address,) if self.status is not None else ()
        return (*status, self.health.address) if self.health is not None else status

    def parts(self) -> Iterator[Monitor]:
        """The same as monitors with at most one port each, of which a reload changes one without the other."""
        if self.has_metrics:
            yield replace(self, health=None)
        if self.health is not None:
            yield Monitor(listeners=self.listeners, health=self.health)


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    """The access log, which has one event per connection."""

    format: str = "off"  # one of ACCESS_FORMATS
    target: str = "log"  # one of ACCESS_TARGETS, or the path of a file
    has_start: bool = False  # also an event when a connection is forwarded

    @property
    def path(self) -> str:
        """The file; "" if there is none."""
        return "" if self.format == "off" or self.target in ACCESS_TARGETS else self.target


@dataclass(frozen=True, slots=True)
class Traces:
    """Traces of connections, sent to a collector by OTLP over HTTP."""

    url: str = field(repr=False)  # may have a password
    ratio: float = 0.01  # the share of connections that are traced
    ca_bundle: str = ""  # to verify the server of an https:// URL; "" for the system's CA certificates
    headers: tuple[HttpHeader, ...] = ()


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where log lines go, and which are omitted; built before the rest of the configuration."""

    quiet: tuple[str, ...] = ()
    is_syslog: bool = False
    format: str = "text"  # one of LOG_FORMATS
    access: AccessLogConfig = field(default_factory=AccessLogConfig)

    @property
    def omitted(self) -> tuple[Category, ...]:
        """The categories of lines that are omitted."""
        return tuple(Category(word) for word in self.quiet if word)


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """The configuration of one process; command lines and configuration files build the same value."""

    listeners: tuple[ListenerConfig, ...]
    monitors: tuple[Monitor, ...] = ()
    log: LogConfig = field(default_factory=LogConfig)
    traces: Traces | None = None
    shutdown_delay: float = 0.0  # from the request to stop until the drain begins
    shutdown_timeout: float = 300.0
    timed_reload: float = 0.0  # seconds between periodic reloads
    workers: int = 1  # processes that serve connections; 1 is this process itself, 0 is one for each usable core
    on_removal: ClosePolicy = KEEP  # for connections of a listener that a reload removes or moves to another address
    is_confined: bool = True  # by Landlock
    warnings: tuple[str, ...] = ()  # about configuration files, with their places


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """The part of a command line that `tunnel check` can check."""

    config: ProcessConfig  # with one listener
    refusal: ConfigError | None = None  # the error with which the checked command refuses the line
    is_route_known: bool = True  # else --proxy is invalid, and the target must not be contacted without it


def name_listeners(listeners: Sequence[ListenerConfig]) -> tuple[ListenerConfig, ...]:
    """The listeners with unique names: a number is added to a name that occurs more than once."""
    names = Counter(listener.name for listener in listeners)
    used: Counter[str] = Counter()
    named = []
    for listener in listeners:
        used[listener.name] += 1
        name = f"{listener.name}-{used[listener.name]}" if names[listener.name] > 1 else listener.name
        named.append(replace(listener, name=name))
    return tuple(named)
