"""The compose file is one that docker-compose takes, and each line in it for our program is one that it takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.container_image import ROOT
from tests.support.kubernetes_objects import parse, read_line
from tests.support.processes import LIMIT
from tests.support.requirements import program

COMPOSE = ROOT / "deploy/compose/compose.yaml"


def config(path: Path) -> subprocess.CompletedProcess[str]:
    argv = [program("docker-compose"), "--file", str(path), "config", "--quiet"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    done = config(COMPOSE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("read_only: true", "readonly: true"))
    assert "readonly" in config(wrong).stderr


def test_our_program_takes_each_line_of_it() -> None:
    (document,) = parse(COMPOSE.read_text())
    lines = [service["command"] for service in document["services"].values() if service["image"] == "tunnel"]
    assert [line[0] for line in lines] == ["dev", "server", "client"]
    for line in lines:
        assert read_line(line)
        assert all(isinstance(word, str) for word in line)


def test_every_container_of_ours_may_write_nothing_and_gain_nothing() -> None:
    (document,) = parse(COMPOSE.read_text())
    ours = [service for service in document["services"].values() if service["image"] == "tunnel"]
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    ports = [port for service in document["services"].values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:6379:6379"]
