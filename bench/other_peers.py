"""The other proxies of the comparison, each with its cheapest settings for the same role as ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from bench.identity import CLIENT_ID, Identity
from bench.processes import BenchError


class OtherPeer:
    """A proxy that is not ours, with one worker."""

    name = ""
    adds_to = ""
    is_plain = False  # a TCP relay, to which the load generator speaks without TLS
    has_log = True
    program = ""
    package = ""

    def find(self) -> str:
        """Return the path of the program; raises BenchError if it is not installed."""
        found = shutil.which(self.program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        if not found:
            raise BenchError(f"no {self.program} in the PATH; {self.package}")
        return found

    def ask(self, *arguments: str) -> str:
        """Return what the program prints about itself."""
        outcome = subprocess.run([self.find(), *arguments], capture_output=True, text=True, check=False)
        return outcome.stdout + outcome.stderr


def _write_pair(directory: Path, name: str, identity: Identity) -> Path:
    pair = directory / name
    pair.touch(mode=0o600)
    pair.write_bytes(identity.server_chain.read_bytes() + identity.server_key.read_bytes())
    return pair


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else "unknown"


class HAProxy(OtherPeer):
    """Debian's HAProxy, one thread."""

    name = "haproxy"
    program = "haproxy"
    package = "on Debian: apt-get install haproxy"

    def versions(self) -> tuple[str, str]:
        said = self.ask("-vv")
        return _found(r"HAProxy version (\S+)", said), _found(r"Running on OpenSSL version : (OpenSSL \S+)", said)

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        tls = (
            ""
            if self.is_plain
            else _HAPROXY_TLS.format(pair=_write_pair(directory, "haproxy.pem", identity), identity=identity)
        )
        configuration = directory / f"{self.name}.cfg"
        configuration.write_text(_HAPROXY.format(tls=tls, port=port, backend=backend))
        return [self.find(), "-db", "-f", str(configuration)]


_HAPROXY_TLS = "ssl crt {pair} ca-file {identity.authorities} verify required ssl-min-ver TLSv1.3 no-tls-tickets"
_HAPROXY = """\
global
    nbthread 1
    maxconn 9950
    tune.ssl.cachesize 0
    log stdout format raw local0 info

defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 10m
    timeout server 10m

frontend tls
    bind 127.0.0.1:{port} {tls}
    default_backend plain

backend plain
    server one 127.0.0.1:{backend}
"""


class PlainHAProxy(HAProxy):
    """HAProxy without TLS: the cost of a TCP relay."""

    name = "tcp"
    is_plain = True

    def versions(self) -> tuple[str, str]:
        return f"HAProxy {super().versions()[0]}", "no TLS"


class Nginx(OtherPeer):
    """Debian's nginx with its stream module, one worker process."""

    name = "nginx"
    program = "nginx"
    package = "on Debian: apt-get install nginx-light libnginx-mod-stream"

    def versions(self) -> tuple[str, str]:
        said = self.ask("-V")
        library = _found(r"running with (OpenSSL \S+)", said)
        return _found(r"nginx/(\S+)", said), library if library != "unknown" else _found(r"built with (OpenSSL \S+)", said)

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        tls = "" if self.is_plain else _NGINX_TLS.format(identity=identity)
        modules = _found(r"--modules-path=(\S+)", self.ask("-V"))
        configuration, log = directory / f"{self.name}.conf", directory / f"{self.name}.log"
        listen = f"127.0.0.1:{port}{'' if self.is_plain else ' ssl'}"
        configuration.write_text(
            _NGINX.format(
                modules=modules, listen=listen, backend=backend, tls=tls, log=log, directory=directory, name=self.name
            )
        )
        return [self.find(), "-c", str(configuration)]


_NGINX_TLS = """\
        ssl_certificate {identity.server_chain};
        ssl_certificate_key {identity.server_key};
        ssl_client_certificate {identity.authorities};
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        ssl_ecdh_curve X25519;
        ssl_session_tickets off;
        ssl_session_cache off;
"""
_NGINX = """\
load_module {modules}/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {directory}/{name}.pid;
error_log {directory}/{name}-errors.log;
events {{ worker_connections 40000; }}
stream {{
    log_format line '$remote_addr $status $bytes_sent $bytes_received $session_time';
    access_log {log} line;
    server {{
        listen {listen} backlog=1024;
        proxy_pass 127.0.0.1:{backend};
        proxy_half_close on;
{tls}    }}
}}
"""


class PlainNginx(Nginx):
    """nginx without TLS: the cost of a TCP relay."""

    name = "tcp-nginx"
    is_plain = True

    def versions(self) -> tuple[str, str]:
        return f"nginx {super().versions()[0]}", "no TLS"


class Hitch(OtherPeer):
    """Debian's hitch, one worker process; it logs no connections to a file."""

    name = "hitch"
    program = "hitch"
    package = "on Debian: apt-get install hitch"
    has_log = False

    def versions(self) -> tuple[str, str]:
        linked = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout
        return _found(r"hitch (\S+)", self.ask("--version")), " ".join(linked.split()[:2]) or "unknown"

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        pair = _write_pair(directory, "hitch.pem", identity)
        configuration = directory / "hitch.conf"
        configuration.write_text(_HITCH.format(identity=identity, pair=pair, port=port, backend=backend))
        return [self.find(), f"--config={configuration}"]


_HITCH = """\
frontend = "[127.0.0.1]:{port}"
backend = "[127.0.0.1]:{backend}"
pem-file = "{pair}"
tls-protos = TLSv1.3
ecdh-curve = "X25519"
client-verify = required
client-verify-ca = "{identity.authorities}"
workers = 1
backlog = 1024
daemon = off
syslog = off
log-level = 1
ocsp-dir = ""
user = "nobody"
"""


class Stunnel(OtherPeer):
    """Debian's stunnel, one thread per connection."""

    name = "stunnel"
    program = "stunnel"
    package = "on Debian: apt-get install stunnel4"

    def versions(self) -> tuple[str, str]:
        said = self.ask("-version")
        return _found(r"stunnel (\S+)", said), _found(
            r"(?:Running +with|with) (OpenSSL 3\S+)", said.replace("Compiled with", "")
        )

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        configuration = directory / "stunnel.conf"
        configuration.write_text(_STUNNEL.format(identity=identity, port=port, backend=backend, log=directory / "stunnel.log"))
        return [self.find(), str(configuration)]


_STUNNEL = """\
foreground = quiet
syslog = no
pid =
output = {log}
debug = notice
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1

[tls]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{backend}
cert = {identity.server_chain}
key = {identity.server_key}
CAfile = {identity.authorities}
verifyChain = yes
sslVersionMin = TLSv1.3
curves = X25519
ciphers = ECDHE-ECDSA-AES128-GCM-SHA256
options = NO_TICKET
sessionCacheSize = 1
libwrap = no
"""


class Ghostunnel(OtherPeer):
    """ghostunnel with the Workload API, one processor for its goroutines."""

    name = "ghostunnel"
    program = "ghostunnel"
    package = "see https://github.com/ghostunnel/ghostunnel"

    def versions(self) -> tuple[str, str]:
        own, built = (
            self.ask("--version"),
            subprocess.run(["go", "version", "-m", self.find()], capture_output=True, text=True, check=False),
        )
        go = _found(r"built with (go\S+)", own)
        module = _found(r"mod\s+github.com/ghostunnel/ghostunnel\s+(v[\d.]+\S*)", built.stdout)
        return module if module != "unknown" else _found(r"(?:rev|version) (\S+)", own), f"crypto/tls of {go}"

    def command(self, directory: Path, identity: Identity, *, port: int, backend: int) -> list[str]:
        source = ["--use-workload-api-addr", identity.workload_api, "--allow-uri", CLIENT_ID]
        return [self.find(), "server", "--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{backend}", *source]


OTHER_PEERS = (HAProxy(), Nginx(), Hitch(), Stunnel(), Ghostunnel(), PlainHAProxy(), PlainNginx())
