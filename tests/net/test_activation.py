"""Socket activation with real descriptors: each socket is taken by name, once, and only if it listens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.errors import ConfigError
from tunnel.net.activation import FIRST_DESCRIPTOR, ActivationSockets, take_inherited
from tunnel.net.address import SystemdAddress
from tunnel.net.listen import open_listener

ROOT = Path(__file__).parents[2]
ACTIVATE = ROOT / "tests/support/scripts/socket_activation.py"
# Opens each address it is given, and says how that went, which flags the descriptor has, and what is left for children.
HELPER = """
import fcntl, json, os, sys
from tunnel.errors import ConfigError
from tunnel.net.activation import take_inherited
from tunnel.net.address import parse_listen_address
from tunnel.net.listen import open_listener

inherited = take_inherited(os.environ, os.getpid())
answers, listeners = [], []
for text in sys.argv[1:]:
    try:
        listeners.append(listener := open_listener(parse_listen_address(text), inherited))
    except ConfigError as error:
        answers.append(str(error))
    else:
        fd = listener.socket.fileno()
        original = next(n for n in range(3, fd) if os.path.sameopenfile(n, fd))
        answers.append([original, str(listener), os.get_blocking(fd), os.get_inheritable(fd)])
for listener in listeners:
    listener.close()
print(json.dumps([answers, [name for name in os.environ if name.startswith("LISTEN_")]]))
"""


def handed_over(sockets: list[str], *addresses: str, environ: dict[str, str] | None = None) -> list[object]:
    """The result for each address in a process with these inherited sockets."""
    done = subprocess.run(
        [sys.executable, ACTIVATE, *sockets, "--", sys.executable, "-c", HELPER, *addresses],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers, left = json.loads(done.stdout)
    assert left == [], "a child would take them for its own"
    assert isinstance(answers, list)
    return answers


def test_each_socket_is_found_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "s"
    tcp, unix = handed_over(["web=127.0.0.1:0", f"status=unix:{path}"], "systemd:web", "systemd:status")
    assert isinstance(tcp, list)
    assert tcp[0] == 3
    assert tcp[1].startswith("tcp:127.0.0.1:")
    assert unix == [4, f"unix:{path}", False, False]
    assert tcp[2:] == [False, False], "never waits, and no child inherits it"
    assert path.exists(), "the file is the manager's"


def test_a_missing_name_is_made_of_the_number() -> None:
    answers = handed_over(
        ["=127.0.0.1:0", "web=127.0.0.1:0", "=[::1]:0"], "systemd:LISTEN_FD_3", "systemd:web", "systemd:LISTEN_FD_5"
    )
    assert [answer[0] for answer in answers if isinstance(answer, list)] == [3, 4, 5]


REFUSED = [
    (["a=127.0.0.1:0"], "systemd:b", "systemd:b: no socket has this name; expected exactly one in 'a'"),
    (
        ["a=127.0.0.1:0", "a=127.0.0.1:0"],
        "systemd:a",
        "systemd:a: 2 sockets have this name; expected exactly one in 'a', 'a'",
    ),
    (["a=datagram"], "systemd:a", "systemd:a: descriptor 3 is not a listening TCP or Unix stream socket"),
    (["a=idle"], "systemd:a", "systemd:a: descriptor 3 is not a listening TCP or Unix stream socket"),
    (["a=closed"], "systemd:a", "systemd:a: descriptor 3 is not a socket"),
    ([], "systemd:a", "systemd:a: no inherited sockets; expected a socket of a .socket unit"),
    (["a=127.0.0.1:0"], "launchd:a", "cannot listen on launchd:a: launchd exists on macOS only; expected systemd:NAME"),
]


@pytest.mark.parametrize(("sockets", "address", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_an_unusable_socket_is_refused_in_one_line(sockets: list[str], address: str, words: str) -> None:
    (answer,) = handed_over(sockets, address)
    assert isinstance(answer, str)
    assert answer.startswith(words)
    assert answer.isprintable()


def test_a_socket_is_taken_once() -> None:
    first, second = handed_over(["a=127.0.0.1:0"], "systemd:a", "systemd:a")
    assert isinstance(first, list)
    assert second == "systemd:a: already used by another listener"


def test_a_socket_can_be_taken_again_after_its_listener_has_closed() -> None:
    """A reload may remove a listener, and a later one add it again."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        inherited = ActivationSockets(tuple(f"fd{fd}" for fd in range(FIRST_DESCRIPTOR, given.fileno() + 1)))
        name = f"fd{given.fileno()}"
        for _ in range(3):
            listener = open_listener(SystemdAddress(name), inherited)
            assert listener.socket.getsockname() == given.getsockname()
            with pytest.raises(ConfigError, match="already used by another listener"):
                inherited.take(name)
            listener.close()


def test_a_refused_socket_does_not_affect_another() -> None:
    refused, taken = handed_over(["a=datagram", "b=127.0.0.1:0"], "systemd:a", "systemd:b")
    assert isinstance(refused, str)
    assert isinstance(taken, list)


def test_sockets_for_another_process_are_not_taken() -> None:
    (answer,) = handed_over(["a=127.0.0.1:0"], "systemd:a", environ={"ACTIVATE_PID": "1"})
    assert isinstance(answer, str)
    assert answer.startswith("systemd:a: inherited sockets are for process '1', not for ")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LISTEN_PID": "7", "LISTEN_FDS": "x"}, "LISTEN_FDS 'x' is not a number"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, "LISTEN_FDS '-1' is not a number"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "\u0663"}, "LISTEN_FDS '\\u0663' is not a number"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": ""}, "LISTEN_FDS '' is not a number"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "9" * 5000}, "is not a number"),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, "no inherited sockets"),
        ({"LISTEN_FDS": "1"}, "inherited sockets are for process '', not for 7"),
        ({"LISTEN_PID": "7x", "LISTEN_FDS": "1"}, "inherited sockets are for process '7x', not for 7"),
        ({"LISTEN_FDNAMES": "a"}, "no inherited sockets"),
        ({}, "no inherited sockets"),
    ],
)
def test_invalid_variables_pass_no_socket_and_are_removed(environ: dict[str, str], words: str) -> None:
    left = {**environ, "OTHER": "1"}
    inherited = take_inherited(left, 7)
    assert left == {"OTHER": "1"}
    with pytest.raises(ConfigError, match=r"^systemd:a: ") as refused:
        inherited.take("a")
    assert words in str(refused.value)


def test_a_count_beyond_the_open_descriptors_is_refused() -> None:
    limit = 1 << 30
    inherited = take_inherited({"LISTEN_PID": "7", "LISTEN_FDS": str(limit)}, 7)
    with pytest.raises(ConfigError, match=f"LISTEN_FDS is {limit}, but descriptor \\d+ is not open"):
        inherited.take("a")
