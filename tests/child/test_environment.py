"""A command gets the environment that we were given, without what is about us."""

from __future__ import annotations

from tunnel.child.environment import for_command

GIVEN = {"PATH": "/bin", "SPIFFE_ENDPOINT_SOCKET": "unix:///x", "KEYSTORE_PATH": "/k", "HTTPS_PROXY": "http://u:p@h"}
OURS = (
    "LISTEN_PID LISTEN_FDS LISTEN_FDNAMES LISTEN_PIDFDID NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC KEYSTORE_PASS PKCS11_PIN"
).split()


def test_what_is_the_proxy_s_own_is_left_out() -> None:
    assert for_command(GIVEN | dict.fromkeys(OURS, "x"), {}) == GIVEN


def test_what_is_added_comes_last() -> None:
    assert for_command(GIVEN, {"PATH": "/usr/bin", "NOTIFY_SOCKET": "@ours"}) == {
        **GIVEN,
        "PATH": "/usr/bin",
        "NOTIFY_SOCKET": "@ours",
    }


def test_what_the_interpreter_or_a_library_has_added_is_left_out_unless_it_was_there() -> None:
    added = {"LC_CTYPE": "C.UTF-8", "GRPC_VERBOSITY": "NONE"}
    assert for_command(GIVEN | added, {}, given=[b"PATH"]) == GIVEN
    assert for_command(GIVEN | added, {}, given=[b"LC_CTYPE", b"GRPC_VERBOSITY"]) == GIVEN | added
