"""Runs a page of the cookbook from top to bottom, with two hosts and one agent.

The text of the page is run unchanged, except for the values of the names that the page tells its reader to adapt.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tests.support.cookbook_page import Block, Page, is_like
from tests.support.plain_backends import free_port
from tests.support.processes import LIMIT, WORKERS, Process, Proxy, bare_environment, tunnel_argv
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import DevWorkloadApi
from tunnel.spiffe.endpoint import WorkloadEndpoint, parse_endpoint
from tunnel.spiffe.ids import parse_spiffe_id

_LISTENS = "listening for connections on "
_WITH_WORKERS = f'case "$1" in server|client) mode=$1; shift; set -- "$mode" --workers={WORKERS} "$@";; esac\n'


class CookbookRunner:
    """A directory, a search path with the `tunnel` under test, and the processes of a page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tools = directory / "bin"
        self.tools.mkdir()
        self.tool("tunnel", tunnel_argv(), _WITH_WORKERS if WORKERS != "1" else "")
        self.agents = {name: f"unix://{directory / name.lower()}" for name in ("SERVER_AGENT", "CLIENT_AGENT")}
        self._things = ExitStack()
        self._server: Proxy | None = None

    def close(self) -> None:
        """End all processes, the newest first."""
        self._things.close()

    def tool(self, name: str, argv: Sequence[str], before: str = "") -> None:
        """Define a command with this name that runs `argv` with its arguments, which `before` may change."""
        path = self.tools / name
        path.write_text(f'#!/bin/sh\n{before}exec {shlex.join(argv)} "$@"\n')
        path.chmod(0o755)

    def values(self) -> dict[str, str]:
        """The values of the names that every page has."""
        address = self.port()
        return {"LISTEN": address, "SERVER": address}

    def port(self, host: str = "127.0.0.1") -> str:
        """A recently free address of this machine."""
        return f"{host}:{free_port()}"

    def follow(self, page: Page, owner: Mapping[str, str] | None = None) -> None:
        """Do what the page says; `owner` is added to the environment of whoever owns the service."""
        base = {**bare_environment(), **page.names, "HOME": str(self.directory), "LC_ALL": "C.UTF-8"}
        for name, text in page.files.items():
            (self.directory / name).write_text(text)
        base["PATH"] = f"{self.tools}:{os.environ.get('PATH', os.defpath)}"
        if not page.has("agent"):
            self._things.enter_context(DevWorkloadApi(self._entries(page)))
        server, client = ({**base, "SPIFFE_ENDPOINT_SOCKET": address} for address in self.agents.values())
        before, output = page.blocks[0], ""
        for block in page.blocks:
            match block.use:
                case "agent":
                    self._stay(Process, block, base, "SPIFFE_ENDPOINT_SOCKET=", count=len(self.agents))
                case "service":
                    self._stay(Process, block, base, "^listening on ")
                case "server":
                    self._server = self._stay(Proxy, block, server, _LISTENS)
                case "daemon":
                    self._stay(Proxy, block, client, _LISTENS)
                case "admin":
                    output = self._run(block, {**server, **(owner or {})})
                case "client":
                    output = self._run(block, client)
                case "output":
                    assert is_like(output, block.text), f"{before.where}: this was printed:\n{output}"
                case "log":
                    self._look_up(block)
            before = block

    def _entries(self, page: Page) -> dict[WorkloadEndpoint, list[Entry]]:
        """The identities that the agent issues to both sides."""
        ids = (page.names["SERVER_ID"], page.names["CLIENT_ID"])
        return {
            parse_endpoint(address): [Entry(parse_spiffe_id(spiffe_id))]
            for address, spiffe_id in zip(self.agents.values(), ids, strict=True)
        }

    def _stay(self, kind: type[Process], block: Block, environ: Mapping[str, str], ready: str, count: int = 1) -> Process:
        # One command, so that it is a process of ours and not one of a shell's.
        process = kind(["bash", "-euc", f"exec {block.text}"], environ=environ, cwd=self.directory)
        self._things.enter_context(closing(process))
        process.wait_for(ready, count=count)
        return process

    def _run(self, block: Block, environ: Mapping[str, str]) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            env=environ,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == int(block.options.get("exit", 0)), f"{block.where}: {done.returncode}:\n{done.stdout}"
        return done.stdout

    def _look_up(self, block: Block) -> None:
        assert self._server is not None
        for line in block.text.splitlines():
            wanted = ".*".join(map(re.escape, line.split("...")))
            self._server.wait_for(wanted)
