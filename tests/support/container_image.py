"""The image of the Dockerfile, built without a daemon, and containers of it.

The base is built on the spot from Debian packages, without a shell, because the image must run without one.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import Proxy, with_workers
from tests.support.requirements import program

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds of one step: packages come over a network
BASES = {  # what stands in for each argument of the Dockerfile
    "BASE": "base-files python3 libstdc++6",
    "BUILD_BASE": "base-files dash coreutils findutils python3 python3-venv python3-dev gcc libc6-dev",
}
# What nobody asks for in a build; a store without layers would copy it three times.
_UNUSED = "usr/share/doc usr/share/locale usr/share/man usr/bin/*lto-dump* usr/lib/gcc/*/*/lto1 usr/lib/python3*/config-*/*.a"
_TO_BUILDER = ("cert", "default-timeout", "extra-index-url", "index-url", "proxy", "trusted-host")  # of pip's settings here


@dataclass(frozen=True)
class Image:
    """A built image: its settings, and its files in a directory."""

    config: dict[str, Any]
    files: Path


class Builder:
    """A private image store in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._buildah = [program("buildah"), "--storage-driver=vfs", f"--root={directory}/store", f"--runroot={directory}/run"]

    def build(self) -> Image:
        """Build the image of the Dockerfile on substitutes for its two base images."""
        with ThreadPoolExecutor() as pool:
            bases = dict(zip(BASES, pool.map(self._stand_in, BASES), strict=True))
        arguments = [f"--build-arg={name}={image}" for name, image in bases.items()]
        volumes = [f"--volume={volume}" for volume in self._pip_settings()]
        self._run(
            "bud", "--isolation=chroot", "--format=docker", "--pull-never", *arguments, *volumes, "--tag=tunnel", str(ROOT)
        )
        config = json.loads(self._run("inspect", "--type=image", "tunnel"))["Docker"]["config"]
        container = self._run("from", "--pull-never", "tunnel")
        return Image(config, Path(self._run("mount", container)))

    def _stand_in(self, name: str) -> str:
        """An image of unpacked packages only: no account, and no shell unless requested."""
        container = self._run("from", "scratch")
        hooks = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
        packages = f"--include={','.join(BASES[name].split())}"
        files = Path(self._run("mount", container))
        _run([program("mmdebstrap"), "--quiet", "--variant=extract", hooks, packages, "bookworm", str(files)])
        for path in (path for pattern in _UNUSED.split() for path in files.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._run("commit", "--quiet", "--rm", container, name.lower())
        return f"localhost/{name.lower()}"

    def _pip_settings(self) -> list[str]:
        """The pip configuration of this machine as volumes, which does not belong in a Dockerfile."""
        listed = _run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
        pairs = (line.partition("=") for line in listed)
        settings = {name.rpartition(".")[2]: ast.literal_eval(text) for name, _, text in pairs}
        kept = {name: settings[name] for name in _TO_BUILDER if name in settings}
        volumes = []
        if "cert" in kept:
            certificates = self._directory / "cert.pem"
            certificates.write_bytes(Path(kept["cert"]).read_bytes())
            kept["cert"] = "/cert.pem"
            volumes.append(f"{certificates}:/cert.pem:ro")
        cache = Path(_run([sys.executable, "-m", "pip", "cache", "dir"]))
        cache.mkdir(parents=True, exist_ok=True)
        lines = ["[global]", "cache-dir = /pip-cache", *(f"{name} = {text}" for name, text in kept.items())]
        (self._directory / "pip.conf").write_text("\n".join(lines) + "\n")
        return [*volumes, f"{self._directory}/pip.conf:/etc/pip.conf:ro", f"{cache}:/pip-cache:rw"]

    def _run(self, *arguments: str) -> str:
        return _run([*self._buildah, *arguments])


def _run(argv: Iterable[str]) -> str:
    done = subprocess.run([*argv], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


# What a runtime does before it starts the entry point: "$0" is the root, "$1" what is mounted at "$2". The shell is the host's.
_PREPARE = """set -e
mount --bind "$0" "$0"
mount --bind "$1" "$0$2"
mount -t proc proc "$0/proc"
mount -o remount,bind,ro "$0"
exec setpriv --no-new-privs chroot --userspec="$3" --groups= "$0" "${@:4}"
"""


class Container(Proxy):
    """The entry point of an image as process 1, with the image's user and a read-only file system.

    `sockets` is what it gets of this machine, read-only like the rest, at /run. The network is this machine's.
    """

    def __init__(self, image: Image, *arguments: str, sockets: Path) -> None:
        self._image = image
        user, entry = image.config["User"], image.config["Entrypoint"]
        unshare = [program("unshare"), "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL"]
        prepare = ["bash", "-c", _PREPARE, str(image.files), str(sockets), "/run", user]
        super().__init__([*unshare, *prepare, *entry, *with_workers(arguments)], environ=self._environ)

    def close(self) -> None:
        """End process 1 too: the kernel forgets --kill-child when the user changes."""
        with suppress(OSError, ValueError):
            os.kill(self.entry_pid, signal.SIGKILL)
        super().close()

    @property
    def entry_pid(self) -> int:
        """The PID of process 1 outside of the container."""
        (child,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(child)

    def execute(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image next to process 1, like a health check."""
        user, _, group = self._image.config["User"].partition(":")
        enter = [program("nsenter"), f"--target={self.entry_pid}", "--mount", "--pid", "--ipc", "--root", "--wd"]
        whole = [*enter, f"--setgid={group}", f"--setuid={user}", *argv]
        return subprocess.run(whole, env=self._environ, capture_output=True, text=True, timeout=LIMIT)

    def stop(self) -> int:
        """Stop the container as a runtime does; return the exit code."""
        os.kill(self.entry_pid, signal.Signals[self._image.config["StopSignal"]])
        return self.exit_code()

    @property
    def _environ(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self._image.config["Env"])
