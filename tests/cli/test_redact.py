"""A redacted command line has no secret."""

from __future__ import annotations

import pytest

from tunnel.cli.redact import SECRETS, redact
from tunnel.commands.registry import load_commands


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["tunnel", "server", "--listen", ":1"], ["tunnel", "server", "--listen", ":1"]),
        (["--storepass", "secret", "--listen"], ["--storepass", "(hidden)", "--listen"]),
        (["--storepass=secret"], ["--storepass=(hidden)"]),
        (["--storepass="], ["--storepass=(hidden)"]),
        (["--storepass", "--storepass", "x"], ["--storepass", "(hidden)", "x"]),
        (["--pkcs11-pin=1234"], ["--pkcs11-pin=(hidden)"]),
        (["--pkcs11-pin", "1234"], ["--pkcs11-pin", "(hidden)"]),
        (["--proxy", "http://me:secret@p:1"], ["--proxy", "http://(hidden)@p:1"]),
        (["--proxy", "http://me:sec@ret@p:1"], ["--proxy", "http://(hidden)@p:1"]),
        (["--metrics-url=https://me:secret@m/x@y"], ["--metrics-url=https://(hidden)@m/x@y"]),
        (["--storepass"], ["--storepass"]),
        ([], []),
    ],
)
def test_secrets_are_hidden_and_nothing_else(argv: list[str], shown: list[str]) -> None:
    assert list(redact(argv)) == shown


def test_every_flag_with_a_secret_is_hidden() -> None:
    assert set(SECRETS) == {f"--{flag.name}" for command in load_commands() for flag in command.flags if flag.is_secret}
