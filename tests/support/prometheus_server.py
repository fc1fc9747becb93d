"""A Prometheus server of a test, and promtool."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.plain_backends import free_port
from tests.support.processes import LIMIT, Process
from tests.support.requirements import program


def promtool(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run promtool to its end."""
    return subprocess.run([program("promtool"), *arguments], input=text, capture_output=True, timeout=LIMIT, check=False)


def check_metrics(text: bytes) -> set[str]:
    """The findings of `promtool check metrics`."""
    done = promtool("check", "metrics", text=text)
    return set((done.stdout + done.stderr).decode().splitlines())


class Prometheus:
    """A server of its own that scrapes one address every second."""

    def __init__(self, place: Path, target: str, **fields: object) -> None:
        job = {"job_name": "tunnel", "metrics_path": "/", "static_configs": [{"targets": [target]}], **fields}
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        (place / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
        self._at = f"127.0.0.1:{free_port()}"
        self._process = Process(
            [
                program("prometheus"),
                f"--config.file={place}/prometheus.yml",
                f"--storage.tsdb.path={place}/data",
                f"--web.listen-address={self._at}",
            ],
            is_merged=True,
        )

    def ask(self, path: str, **fields: str) -> Any:
        """The data of an answer of its API, as soon as it answers."""
        url = f"http://{self._at}/api/v1/{path}?{urllib.parse.urlencode(fields)}"
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                with urllib.request.urlopen(url, timeout=LIMIT) as answer:
                    return json.load(answer)["data"]
            except OSError:
                assert self._process.is_running, self._process.lines
                assert time.monotonic() < deadline, self._process.lines
                time.sleep(0.05)

    def target(self) -> dict[str, str]:
        """What it says of its target, once it has scraped it."""
        deadline = time.monotonic() + LIMIT
        while True:
            (target,) = self.ask("targets")["activeTargets"] or [{"health": "unknown"}]
            if target["health"] != "unknown":
                return dict(target)
            assert time.monotonic() < deadline, target
            time.sleep(0.05)

    def value(self, query: str) -> float:
        """Of an expression with one result; a scrape counts as successful a moment before its samples can be found."""
        deadline = time.monotonic() + LIMIT
        while not (results := self.ask("query", query=query)["result"]):
            assert time.monotonic() < deadline, f"no result of {query}"
            time.sleep(0.05)
        (found,) = results
        return float(found["value"][1])

    def close(self) -> None:
        self._process.stop()
        self._process.close()
