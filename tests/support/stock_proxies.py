"""HAProxy, nginx and stunnel as peers: each forwards plain TCP to a TLS server, or TLS to a plain one.

The plain side is a Unix socket, the TLS side a port.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support.certificate_files import Files
from tests.support.plain_backends import free_port
from tests.support.processes import Process, eventually
from tests.support.requirements import program
from tests.support.workloads import Workloads

_HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout client 60s
    timeout server 60s
    timeout connect 60s
listen hop
    bind {listen} {bind_tls}
    server only {target} {server_tls}
"""
_HAPROXY_CLIENT = "ssl crt {files.combined} ca-file {ca} verify required verifyhost localhost ssl-min-ver {v} ssl-max-ver {v}"
_HAPROXY_SERVER = "ssl crt {files.combined} ca-file {ca} verify required ssl-min-ver {v} ssl-max-ver {v}"
_NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
{modules}
events {{}}
stream {{
    server {{
        listen {listen};
        proxy_pass {target};
        proxy_half_close on;
        {tls}
    }}
}}
"""
_NGINX_CLIENT = """
        proxy_ssl on;
        proxy_ssl_certificate {files.chain};
        proxy_ssl_certificate_key {files.key};
        proxy_ssl_trusted_certificate {ca};
        proxy_ssl_verify on;
        proxy_ssl_verify_depth 3;
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
        proxy_ssl_protocols {v};
"""
_NGINX_SERVER = """
        ssl_certificate {files.chain};
        ssl_certificate_key {files.key};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        ssl_verify_depth 3;
        ssl_protocols {v};
"""
_STUNNEL = """
foreground = yes
pid =
syslog = no
debug = notice
[hop]
client = {client}
accept = {listen}
connect = {target}
cert = {files.chain}
key = {files.key}
CAfile = {ca}
verifyChain = yes
sslVersion = {v}
TIMEOUTclose = 60
{more}
"""

Peer = Callable[[Workloads, str, Files, Path, str], tuple[Process, str]]  # ..., target, files, authorities, version -> where


def haproxy_client(workloads: Workloads, target: str, files: Files, ca: Path, version: str) -> tuple[Process, str]:
    """Plain in at the path that is returned, TLS out to `target`."""
    path = _place(workloads, "haproxy") / "plain"
    tls = _HAPROXY_CLIENT.format(files=files, ca=ca, v=f"TLSv{version}")
    text = _HAPROXY.format(listen=f"unix@{path}", bind_tls="", target=target, server_tls=tls)
    return _run(workloads, [program("haproxy"), "-db", "-f"], text, path)


def haproxy_server(workloads: Workloads, target: str, files: Files, ca: Path, version: str) -> tuple[Process, str]:
    """TLS in at the address that is returned, plain out to the path `target`."""
    port = free_port()
    tls = _HAPROXY_SERVER.format(files=files, ca=ca, v=f"TLSv{version}")
    text = _HAPROXY.format(listen=f"127.0.0.1:{port}", bind_tls=tls, target=f"unix@{target}", server_tls="")
    return _run(workloads, [program("haproxy"), "-db", "-f"], text, port, _place(workloads, "haproxy"))


def nginx_client(workloads: Workloads, target: str, files: Files, ca: Path, version: str) -> tuple[Process, str]:
    """Plain in at the path that is returned, TLS out to `target`."""
    place = _place(workloads, "nginx")
    tls = _NGINX_CLIENT.format(files=files, ca=ca, v=f"TLSv{version}")
    return _nginx(workloads, f"unix:{place / 'plain'}", target, tls, place / "plain", place)


def nginx_server(workloads: Workloads, target: str, files: Files, ca: Path, version: str) -> tuple[Process, str]:
    """TLS in at the address that is returned, plain out to the path `target`."""
    port, tls = free_port(), _NGINX_SERVER.format(files=files, ca=ca, v=f"TLSv{version}")
    return _nginx(workloads, f"127.0.0.1:{port} ssl", f"unix:{target}", tls, port, _place(workloads, "nginx"))


def stunnel_client(workloads: Workloads, target: str, files: Files, ca: Path, version: str) -> tuple[Process, str]:
    """Plain in at the path that is returned, TLS out to `target`."""
    path = _place(workloads, "stunnel") / "plain"
    more = "checkHost = localhost\nsni = localhost"
    text = _STUNNEL.format(client="yes", listen=path, target=target, files=files, ca=ca, v=f"TLSv{version}", more=more)
    return _run(workloads, [program("stunnel")], text, path)


def stunnel_server(workloads: Workloads, target: str, files: Files, ca: Path, version: str) -> tuple[Process, str]:
    """TLS in at the address that is returned, plain out to the path `target`."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    text = _STUNNEL.format(client="no", listen=listen, target=target, files=files, ca=ca, v=f"TLSv{version}", more="")
    return _run(workloads, [program("stunnel")], text, port, _place(workloads, "stunnel"))


CLIENTS: dict[str, Peer] = {"haproxy": haproxy_client, "nginx": nginx_client, "stunnel": stunnel_client}
SERVERS: dict[str, Peer] = {"haproxy": haproxy_server, "nginx": nginx_server, "stunnel": stunnel_server}


def _nginx(workloads: Workloads, listen: str, target: str, tls: str, place: Path | int, directory: Path) -> tuple[Process, str]:
    # Debian has the part for streams in a file of its own; an nginx that was built with it has none.
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    modules = f"load_module {module};" if module.exists() else ""
    text = _NGINX.format(directory=directory, modules=modules, listen=listen, target=target, tls=tls)
    return _run(workloads, [program("nginx"), "-c"], text, place, directory)


def _place(workloads: Workloads, name: str) -> Path:
    """A new directory for each started process."""
    number = sum(1 for _ in workloads.directory.glob(f"{name}-*"))
    place = workloads.directory / f"{name}-{number}"
    place.mkdir()
    return place


def _run(
    workloads: Workloads, argv: list[str], text: str, place: Path | int, directory: Path | None = None
) -> tuple[Process, str]:
    file = (place.parent if isinstance(place, Path) else directory or workloads.directory) / "configuration"
    file.write_text(text)
    process = workloads.watch(Process([*argv, str(file)], is_merged=True))
    where = str(place) if isinstance(place, Path) else f"127.0.0.1:{place}"
    eventually(lambda: _answers(place) or not process.is_running, f"{argv[0]} listens")
    assert process.is_running, process.transcript()
    return process, where


def _answers(place: Path | int) -> bool:
    family, address = (socket.AF_UNIX, str(place)) if isinstance(place, Path) else (socket.AF_INET, ("127.0.0.1", place))
    with socket.socket(family) as sock, suppress(OSError):
        sock.connect(address)
        return True
    return False
