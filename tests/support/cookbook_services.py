"""sshd and nginx as temporary processes on loopback, with the settings of a page."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.plain_backends import connect
from tests.support.processes import LIMIT, Process, eventually
from tests.support.requirements import program

_SEPARATION = Path("/run/sshd")  # compiled into sshd; made by Debian's unit when it starts
NGINX = """
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
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {servers}
}}
"""


@contextmanager
def sshd(directory: Path, settings: str, address: str) -> Iterator[str]:
    """Run sshd with these settings; yields the ~/.ssh/config of a user who may log in and has the host key."""
    keys = {name: directory / name for name in ("host_key", "user_key")}
    for key in keys.values():
        subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=LIMIT)
    known = directory / "known_hosts"
    known.write_text(f"build.example.org {keys['host_key'].with_suffix('.pub').read_text()}")
    file = directory / "sshd_config"
    file.write_text(settings)
    options = {
        "Port": address.rpartition(":")[2],
        "HostKey": keys["host_key"],
        "AuthorizedKeysFile": keys["user_key"].with_suffix(".pub"),
        "PidFile": "none",
        "StrictModes": "no",  # of the directories above ours anyone may write into one
        "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",  # as in Debian's own file, for scp
        "SetEnv": f'PATH="{os.environ.get("PATH", os.defpath)}"',
    }
    if os.geteuid() == 0:
        _SEPARATION.mkdir(mode=0o755, exist_ok=True)
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    process = Process([program("sshd"), "-D", "-e", "-f", str(file), *flags], is_merged=True)
    try:
        process.wait_for("Server listening on 127.0.0.1 port")
        user = pwd.getpwuid(os.geteuid()).pw_name
        yield f"Host *\nUser {user}\nIdentityFile {keys['user_key']}\nUserKnownHostsFile {known}\nBatchMode yes\n"
    finally:
        process.stop()
        process.close()


@contextmanager
def nginx(directory: Path, servers: str, address: str) -> Iterator[None]:
    """Run nginx with these servers, one of which listens at `address`."""
    file = directory / "nginx.conf"
    file.write_text(NGINX.format(directory=directory, servers=servers))
    process = Process([program("nginx"), "-e", "stderr", "-c", str(file)], is_merged=True)
    host, _, port = address.rpartition(":")

    def answers() -> bool:
        assert process.is_running, process.transcript()
        with suppress(OSError), connect((host, int(port))):
            return True
        return False

    try:
        eventually(answers, "nginx listens")
        yield
    finally:
        process.stop()
        process.close()
