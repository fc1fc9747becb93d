"""The environment of a command: the inherited one without our own variables."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.script_runner import LIMIT, environment
from tunnel.child.inherited import command_environment
from tunnel.cli.variables import SECRETS, is_of_libraries
from tunnel.commands.proxy.source import FLAGS

GIVEN = {"PATH": "/bin", "SPIFFE_ENDPOINT_SOCKET": "unix:///x", "KEYSTORE_PATH": "/k", "HTTPS_PROXY": "http://u:p@h"}
OURS = (
    "LISTEN_PID LISTEN_FDS LISTEN_FDNAMES LISTEN_PIDFDID NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC KEYSTORE_PASS PKCS11_PIN"
).split()


def test_what_is_the_proxy_s_own_is_left_out() -> None:
    assert command_environment({}, GIVEN | dict.fromkeys(OURS, "x")) == GIVEN


def test_what_is_added_comes_last() -> None:
    assert command_environment({"PATH": "/usr/bin", "NOTIFY_SOCKET": "@ours"}, GIVEN) == {
        **GIVEN,
        "PATH": "/usr/bin",
        "NOTIFY_SOCKET": "@ours",
    }


def test_it_is_what_the_kernel_has_recorded_byte_for_byte() -> None:
    """Without what has been set, changed and removed since, LC_CTYPE by the interpreter among it; of duplicates the first."""
    source = (
        "import os; from tunnel.child.inherited import command_environment; os.environ['NEW'] = 'x'; os.environ['KEPT'] = 'x'; "
        "del os.environ['GONE']; os.write(1, repr(sorted(command_environment({}).items())).encode('ascii', 'backslashreplace'))"
    )
    given = {
        b"PATH": b"/bin",
        b"LC_ALL": b"C",
        b"KEPT": b"\xff=\n",
        b"GONE": b"g",
        b"PYTHONPATH": environment()["PYTHONPATH"].encode(),
    }
    done = subprocess.run([sys.executable, "-c", source], env=given, capture_output=True, timeout=LIMIT, check=True)
    wanted = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
    assert done.stdout == repr(sorted(wanted.items())).encode("ascii", "backslashreplace")


def test_every_secret_flag_has_its_variable_listed() -> None:
    assert sorted(SECRETS) == sorted(flag.env for flag in FLAGS if flag.is_secret and flag.env)


def test_inputs_of_ours_are_no_settings_of_libraries() -> None:
    inputs = [flag.env for flag in FLAGS if flag.env]
    assert not [*filter(is_of_libraries, [*inputs, *GIVEN, "SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy", "TMPDIR"])]
