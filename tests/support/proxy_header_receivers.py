"""HAProxy and nginx as backends that parse a PROXY header and return its fields.

They can return TLVs by number from HAProxy 2.9 and nginx 1.23.2 on.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.plain_backends import free_port
from tests.support.processes import LIMIT, Process, eventually
from tests.support.requirements import program

_HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 60s
frontend told
    bind 127.0.0.1:{port} accept-proxy
    bind unix@{path} accept-proxy
    http-request return status 200 content-type text/plain lf-string "{words}"
"""
_NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        listen unix:{path} proxy_protocol;
        return 200 "{words}";
    }}
}}
"""


@dataclass(frozen=True)
class Receiver:
    """The addresses of a backend as proxy targets, and the fields that it returns, in order."""

    tcp: str
    unix: str
    facts: tuple[str, ...]


@contextmanager
def haproxy(directory: Path) -> Iterator[Receiver]:
    """HAProxy, which returns addresses and SNI, and the SPIFFE ID in newer versions."""
    sources = {"source": "src", "source port": "src_port", "target": "dst", "target port": "dst_port", "sni": "fc_pp_authority"}
    if version_of("haproxy", "-v") >= (2, 9):
        sources |= {"id": "fc_pp_tlv(0xE5)"}
    words = "|".join(f"%[{source}]" for source in sources.values())
    port, path = free_port(), directory / "haproxy.sock"
    text = _HAPROXY.format(port=port, path=path, words=words)
    with running_receiver([program("haproxy"), "-db", "-f"], text, directory / "haproxy.cfg", path):
        yield Receiver(f"127.0.0.1:{port}", f"unix:{path}", tuple(sources))


@contextmanager
def nginx(directory: Path) -> Iterator[Receiver]:
    """nginx, which returns addresses, and TLVs in newer versions."""
    sources = {"source": "addr", "source port": "port", "target": "server_addr", "target port": "server_port"}
    if version_of("nginx", "-v") >= (1, 23, 2):
        sources |= {"sni": "tlv_authority", "version": "tlv_ssl_version", "cn": "tlv_ssl_cn", "id": "tlv_0xe5"}
    words = "|".join(f"$proxy_protocol_{source}" for source in sources.values())
    port, path = free_port(), directory / "nginx.sock"
    text = _NGINX.format(port=port, path=path, words=words, directory=directory)
    with running_receiver([program("nginx"), "-c"], text, directory / "nginx.conf", path):
        yield Receiver(f"127.0.0.1:{port}", f"unix:{path}", tuple(sources))


def version_of(name: str, flag: str) -> tuple[int, ...]:
    """The version of a program that prints it with this flag."""
    done = subprocess.run([program(name), flag], capture_output=True, text=True, timeout=LIMIT, check=True)
    found = re.search(r"[0-9]+(?:\.[0-9]+)+", done.stdout + done.stderr)
    assert found is not None
    return tuple(map(int, found[0].split(".")))


@contextmanager
def running_receiver(argv: list[str], text: str, file: Path, path: Path) -> Iterator[None]:
    """Run a program with these settings until the end; it listens at the path of a Unix socket."""
    file.write_text(text)
    process = Process([*argv, str(file)], is_merged=True)
    try:
        eventually(lambda: path.exists() or not process.is_running, f"{argv[0]} listens")
        assert process.is_running, process.transcript()
        yield
    finally:
        process.stop()
        process.close()
