"""The processes of `tunnel demo`, their output, and plain TCP clients."""

from __future__ import annotations

import os
import queue
import re
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from tunnel.interpreter import isolated_argv

_LIMIT = 20.0  # seconds for each step: reached only if something is broken
_LISTENING = re.compile(r"listening for connections on (?P<address>\S+)")


class DemoError(Exception):
    """A step failed."""


class DemoProcess:
    """One process and the lines that it prints, in order."""

    def __init__(self, mode: str, process: subprocess.Popen[str]) -> None:
        self.mode = mode
        self.address = ""
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._skipped: list[str] = []
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def expect(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """The next line that matches."""
        for index, line in enumerate(self._skipped):
            if found := pattern.search(line):
                del self._skipped[index]
                return found
        while True:
            try:
                line = self._lines.get(timeout=_LIMIT)
            except queue.Empty:
                raise DemoError(f"the {self.mode} process does not print {pattern.pattern!r}") from None
            if not line:
                raise DemoError(f"the {self.mode} process ended: {' '.join(self._skipped[-1:]).strip()}")
            if found := pattern.search(line):
                return found
            self._skipped.append(line)

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._lines.put(line)
        self._lines.put("")


class PlainClient:
    """A plain TCP connection that sends lines and receives one for each."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=_LIMIT)
        self._input = self._socket.makefile("r", encoding="utf-8")

    def exchange(self, text: str) -> str | None:
        """Send a line; the answer, or None if the connection ended without one."""
        try:
            self._socket.sendall(text.encode() + b"\n")
            answer = self._input.readline()
        except TimeoutError:
            raise DemoError(f"no answer to {text!r}") from None
        except OSError:
            return None
        return answer.rstrip("\n") or None

    def close(self) -> None:
        """Close the connection."""
        self._input.close()
        self._socket.close()


class DemoProcesses:
    """Starts processes, and stops them when `resources` is closed."""

    def __init__(self, directory: Path, resources: ExitStack) -> None:
        self._directory = directory
        self._resources = resources

    def start_workload_api(self, identities: Mapping[str, str], rotate: float) -> None:
        """Serve a socket for each name, with that identity; returns when all are open."""
        flags = [f"--rotate={rotate}s", f"--ttl={rotate * 5}s"]
        for name, spiffe_id in identities.items():
            flags += ["--socket", self._endpoint(name), "--id", f"{self._endpoint(name)}={spiffe_id}"]
        process = self._start("Workload API", ["dev", *flags])
        for _ in identities:
            process.expect(re.compile("SPIFFE_ENDPOINT_SOCKET="))

    def start_service(self) -> int:
        """Start the plain TCP service; its port."""
        process = self._start("service", [], "tunnel.commands.demo.backend:main")
        return int(process.expect(re.compile(r"^\d+$"))[0])

    def start_proxy(self, mode: str, name: str, target: str, *flags: str) -> DemoProcess:
        """Start a proxy with the identity of that name; returns when it accepts connections."""
        common = ["--use-workload-api-addr", self._endpoint(name), "--listen", "127.0.0.1:0", "--target", target]
        process = self._start(mode, [mode, *common, *flags])
        process.address = process.expect(_LISTENING)["address"]
        return process

    def connect(self, proxy: DemoProcess) -> PlainClient:
        """Open a plain TCP connection to a proxy."""
        return PlainClient(proxy.address)

    def _endpoint(self, name: str) -> str:
        return f"unix://{self._directory}/{name}.sock"

    def _start(self, mode: str, arguments: Sequence[str], function: str = "tunnel.__main__:main") -> DemoProcess:
        environ = {name: value for name, value in os.environ.items() if name != "SPIFFE_ENDPOINT_SOCKET"}
        process = subprocess.Popen(  # noqa: S603  # our own program
            isolated_argv(function, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
        )
        self._resources.callback(_end, process)
        return DemoProcess(mode, process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
