"""Identities in files: an authority, and proxies that use its certificates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.certificate_files import Pki
from tests.support.processes import Proxy, bare_environment, tunnel_argv
from tests.support.workloads import ANY_PORT, Identity, Workloads


class FileIdentities(Workloads):
    """An authority with a server and a client certificate, and the processes of a test."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, agent=False)
        self.pki = Pki(directory)
        self.server_files = self.pki.leaf("server", dns=("localhost",), ips=("127.0.0.1",))
        self.client_files = self.pki.leaf("client", units=("tests",))

    def serve(
        self,
        target: str,
        *flags: str,
        files: Identity | None = None,
        rules: Sequence[str] = ("--allow-all",),
        listen: str = ANY_PORT,
        **more: Any,
    ) -> Proxy:
        """Start a server proxy with the certificate in `files`."""
        line = f"--listen={listen}", f"--target={target}", *self.named(files or self.server_files), *rules, *flags
        return self.start("server", *line, **more)

    def call(self, target: str, *flags: str, files: Identity | None = None, listen: str = ANY_PORT, **more: Any) -> Proxy:
        """Start a client proxy with the certificate in `files`."""
        line = f"--listen={listen}", f"--target={target}", *self.named(files or self.client_files), *flags
        return self.start("client", *line, **more)

    def start(self, mode: str, *flags: str, before: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> Proxy:
        """Start a proxy with this command line; `before` is a program that runs it."""
        argv = [*before, *tunnel_argv(mode, *flags)]
        return self.watch(Proxy(argv, environ={**bare_environment(), **(environ or {})}))

    def named(self, files: Identity) -> list[str]:
        """The flags for the files and our authority."""
        return [f"--cert={files.chain}", f"--key={files.key}", f"--cacert={self.pki.cacert}"]
