"""What the tests of the installed command need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.installed_command import CommandFiles, InstalledCommand, make_command_files


@pytest.fixture(scope="session")
def command_files(tmp_path_factory: pytest.TempPathFactory) -> CommandFiles:
    return make_command_files(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def installed_command(tmp_path: Path, command_files: CommandFiles) -> Iterator[InstalledCommand]:
    """Everything that a test starts, with certificates on disk."""
    with closing(InstalledCommand(tmp_path, command_files)) as installed_command:
        yield installed_command
