"""A world whose identities are files: an authority, and proxies that read what it has issued.

Knows the flags that name files; must not know what is tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.certificate_files import Pki
from tests.support.processes import Proxy, bare_environment, tunnel_argv
from tests.support.workloads import ANY_PORT, Identity, Workloads


class FileIdentities(Workloads):
    """An authority, a server's and a client's certificate by it, and whatever a test starts."""

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
        """A server proxy that shows `files`, just started."""
        line = f"--listen={listen}", f"--target={target}", *self.named(files or self.server_files), *rules, *flags
        return self.start("server", *line, **more)

    def call(self, target: str, *flags: str, files: Identity | None = None, listen: str = ANY_PORT, **more: Any) -> Proxy:
        """A client proxy that shows `files`, just started."""
        line = f"--listen={listen}", f"--target={target}", *self.named(files or self.client_files), *flags
        return self.start("client", *line, **more)

    def start(self, mode: str, *flags: str, before: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> Proxy:
        """A proxy by its whole line; `before` is a program that starts it."""
        argv = [*before, *tunnel_argv(mode, *flags)]
        return self.watch(Proxy(argv, environ={**bare_environment(), **(environ or {})}))

    def named(self, files: Identity) -> list[str]:
        """The flags that name them, and our authority."""
        return [f"--cert={files.chain}", f"--key={files.key}", f"--cacert={self.pki.cacert}"]
