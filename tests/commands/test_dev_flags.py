"""The command line of `tunnel dev` gives a configuration or one error."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from tunnel.cli.parser import parse_command_line
from tunnel.commands.dev import command as dev
from tunnel.config.dev_model import DevConfig, Entry
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id


def build(*flags: str, runtime_dir: str = "") -> DevConfig:
    environ = {"XDG_RUNTIME_DIR": runtime_dir}
    return dev.build(parse_command_line(["dev", *flags], [dev.COMMAND], environ).arguments, environ)


def entry(text: str, hint: str = "", *dns_names: str) -> Entry:
    return Entry(parse_spiffe_id(text), hint, dns_names)


def test_without_flags_there_is_one_workload_on_a_socket_of_the_programs_choice() -> None:
    config = build(runtime_dir="/run/user/1")
    assert config.sockets == {None: (entry("spiffe://example.org/workload"),)}
    assert (config.runtime_dir, config.socket_mode, config.federations) == ("/run/user/1", 0o600, ())
    assert (config.issuing.ttl, config.issuing.ca_ttl) == (timedelta(hours=1), timedelta(hours=24))
    assert (config.rotate, config.ca_rotate) == (1800.0, 4 * 3600.0)


def test_ids_go_to_the_socket_they_name_or_to_the_first_one() -> None:
    config = build(
        "--id=spiffe://a.test/x,hint=internal,dns=db.a.test,dns=*.a.test",
        "--id=unix:///run/b.sock=spiffe://b.test/y",
        "--socket=unix:///run/a.sock",
        "--socket=unix:///run/c.sock",
        "--id=spiffe://a.test/z",
    )
    assert config.sockets == {
        WorkloadEndpoint(path="/run/a.sock"): (
            entry("spiffe://a.test/x", "internal", "db.a.test", "*.a.test"),
            entry("spiffe://a.test/z"),
        ),
        WorkloadEndpoint(path="/run/c.sock"): (),
        WorkloadEndpoint(path="/run/b.sock"): (entry("spiffe://b.test/y"),),
    }


def test_one_socket_alone_has_the_default_workload() -> None:
    assert build("--socket=tcp://127.0.0.1:8081").sockets == {WorkloadEndpoint(host="127.0.0.1", port=8081): (dev.DEFAULT_ID,)}


def test_a_token_is_valid_for_five_minutes_and_no_longer_than_its_key() -> None:
    assert build().issuing.jwt_ttl == timedelta(minutes=5)
    assert build("--jwt-ttl=10m").issuing.jwt_ttl == timedelta(minutes=10)
    assert build("--ca-rotate=20s").issuing.jwt_ttl == timedelta(seconds=20)
    assert build("--ca-rotate=300ms").issuing.jwt_ttl == timedelta(seconds=1)
    assert build("--ca-rotate=0", "--jwt-ttl=48h").issuing.jwt_ttl == timedelta(hours=48)
    with pytest.raises(ConfigError, match="outlive its key"):
        build("--ca-rotate=20s", "--jwt-ttl=21s")


def test_lifetimes_can_be_seconds_and_the_default_renewal_is_at_half() -> None:
    config = build("--ttl=10s", "--rotate=3s", "--ca-ttl=60s", "--ca-rotate=5s")
    assert (config.issuing.ttl, config.rotate, config.issuing.ca_ttl, config.ca_rotate) == (
        timedelta(seconds=10),
        3.0,
        timedelta(seconds=60),
        5.0,
    )
    assert build("--ttl=10s").rotate == 5.0
    assert (build("--rotate=0").rotate, build("--ca-rotate=0").ca_rotate) == (0.0, 0.0)


def test_switches_mode_key_and_federation_are_taken() -> None:
    config = build(
        "--id=spiffe://a.test/x",
        "--id=unix:///b.sock=spiffe://b.test/y",
        "--federate=a.test,spiffe://b.test",
        "--intermediate",
        "--same-subject",
        "--key-type=rsa-2048",
        "--socket-mode=0660",
        "--verbose",
    )
    assert config.federations == (frozenset({TrustDomain("a.test"), TrustDomain("b.test")}),)
    assert (config.issuing.has_intermediate, config.issuing.has_same_subject, config.is_verbose) == (True, True, True)
    assert (config.issuing.key_type, config.socket_mode) == ("rsa-2048", 0o660)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--socket=/tmp/a.sock"], "expected unix:///tmp/a.sock"),
        (["--socket=tcp://0.0.0.0:8081"], "loopback"),
        (["--socket=tcp://[::]:8081"], "loopback"),
        (["--socket=tcp://192.0.2.1:8081"], "loopback"),
        (["--socket=unix:///" + "a" * 107], "socket path has 108 bytes; expected at most 107"),
        (["--id=a.test/x"], r"expected \[ADDR=\]spiffe://"),
        (["--id=unix:///a.sockspiffe://a.test/x"], r"expected \[ADDR=\]spiffe://"),
        (["--id=tcp://192.0.2.1:1=spiffe://a.test/x"], "loopback"),
        (["--id==spiffe://a.test/x"], "missing scheme"),
        (["--id=spiffe://a.test"], "an ID with a path"),
        (["--id=spiffe://a.test/x,hint="], "hint=HINT"),
        (["--id=spiffe://a.test/x,hint=a,hint=b"], "one hint"),
        (["--id=spiffe://a.test/x,hint=" + "h" * 1025], "1024 bytes"),
        (["--id=spiffe://a.test/x,dns=not a name"], "dns=NAME"),
        (["--id=spiffe://a.test/x,ip=127.0.0.1"], "expected dns=NAME"),
        (["--id=spiffe://a.test/x", "--id=spiffe://a.test/x"], "given twice"),
        (["--id=spiffe://a.test/x,hint=h", "--id=spiffe://a.test/y,hint=h"], "hint is given twice"),
        (["--federate=a.test"], "two or more"),
        (["--federate=example.org,B.test"], "invalid character"),
        (["--federate=example.org,b.test"], "no --id is in trust domain b.test"),
        (["--ttl=500ms"], "expected 1s"),
        (["--ttl=87601h"], "87600h"),
        (["--ttl=10"], "missing unit"),
        (["--ttl=10s", "--rotate=10s"], "not shorter than --ttl"),
        (["--rotate=1ms"], "too short"),
        (["--ttl=48h"], "longer than --ca-ttl"),
        (["--ca-rotate=5h"], "a fifth of --ca-ttl"),
        (["--socket-mode=0999"], "invalid mode"),
        (["--socket-mode=0o600"], "invalid mode"),
        (["--key-type=dsa"], "ec-p256"),
    ],
)
def test_an_invalid_line_of_dev_is_one_line_of_error(flags: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        build(*flags)
    assert "\n" not in str(caught.value)


def test_reading_the_line_imports_neither_grpc_nor_cryptography() -> None:
    program = "import sys, tunnel.commands.dev.command; print({'grpc', 'cryptography'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
