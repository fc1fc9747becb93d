"""The commands that the README shows for a migration from ghostunnel work as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.installed_command import InstalledCommand, ask
from tests.support.plain_backends import Backend, connect, echo, free_port

README = Path(__file__).parents[2] / "README.md"


def shown() -> list[str]:
    """The commands of the section's first block of code, one a line."""
    section = README.read_text().partition("## Migrate from ghostunnel")[2]
    return section.split("```sh\n")[1].partition("```")[0].replace("\\\n", " ").splitlines()


def test_the_lines_of_the_readme_carry_bytes_and_tell_their_status(installed_command: InstalledCommand) -> None:
    ports = {port: free_port() for line in shown() for port in re.findall(r":([0-9]+)\b", line)}
    installed_command.enter(Backend(echo, port=ports["8080"]))
    for line in shown():
        program, *arguments = shlex.split(re.sub(r":([0-9]+)\b", lambda found: f":{ports[found[1]]}", line))
        assert program == "tunnel"
        assert installed_command.start(*arguments, cwd=installed_command.command_files.directory).address
    with connect(("127.0.0.1", ports["8081"])) as plain:
        plain.sendall(b"as ever")
        assert plain.recv(7) == b"as ever"
    assert ask(("127.0.0.1", ports["6060"]), "/_status")[0] == 200
