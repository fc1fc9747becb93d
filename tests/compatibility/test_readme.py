"""What the README shows to those who come from ghostunnel works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from backends import Backend, connect, echo, free_port
from stand import Stand, ask

README = Path(__file__).parents[2] / "README.md"


def shown() -> list[str]:
    """The commands of the section's first block of code, one a line."""
    section = README.read_text().partition("## Coming from ghostunnel")[2]
    return section.split("```sh\n")[1].partition("```")[0].replace("\\\n", " ").splitlines()


def test_the_lines_of_the_readme_carry_bytes_and_tell_their_status(stand: Stand) -> None:
    ports = {port: free_port() for line in shown() for port in re.findall(r":([0-9]+)\b", line)}
    stand.enter(Backend(echo, port=ports["8080"]))
    for line in shown():
        program, *arguments = shlex.split(re.sub(r":([0-9]+)\b", lambda found: f":{ports[found[1]]}", line))
        assert program == "tunnel"
        assert stand.start(*arguments, cwd=stand.papers.directory).address
    with connect(("127.0.0.1", ports["8081"])) as plain:
        plain.sendall(b"as ever")
        assert plain.recv(7) == b"as ever"
    assert ask(("127.0.0.1", ports["6060"]), "/_status")[0] == 200
