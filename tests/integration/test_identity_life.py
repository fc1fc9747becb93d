"""The life of an identity: it comes late, is refused, changes, is taken away, expires; the agent dies and comes back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.openssl_command import alert_of, s_client
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import SHORT_GRACE, Proxy, bare_environment, tunnel_argv, with_workers
from tests.support.tls_peer import tls_connection
from tests.support.workloads import ANY_PORT, CLIENT, FOREIGNER, SERVER, Workloads
from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.api import SVIDS
from tunnel.devapi.publisher import Refusal
from tunnel.spiffe.ids import parse_spiffe_id

NO_LISTENER = "listening for connections"
UNKNOWN_CA, BAD_CERTIFICATE = 48, 42


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Workloads]:
    """Workloads without an agent."""
    with closing(Workloads(tmp_path, agent=False)) as workloads:
        yield workloads


@pytest.fixture
def fleeting(tmp_path: Path) -> Iterator[Workloads]:
    """Workloads whose SVIDs are valid for five seconds."""
    with closing(Workloads(tmp_path, issuing=Issuing(ttl=timedelta(seconds=5)))) as workloads:
        yield workloads


def backend(workloads: Workloads) -> str:
    return workloads.enter(Backend(echo)).target


def assert_serves(workloads: Workloads, proxy: Proxy, who: str = CLIENT) -> None:
    with tls_connection(proxy.address, workloads.identity(who)) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


def assert_closes_at_once(proxy: Proxy) -> None:
    with connect(proxy.address) as sock:
        assert sock.recv(1) == b""


# -- the first identity


def test_an_agent_that_comes_late_is_waited_for(lonely: Workloads) -> None:
    proxy = lonely.server(backend(lonely))
    proxy.wait_for("Workload API unavailable .*retrying")
    assert not proxy.matches(NO_LISTENER)
    lonely.api.start()
    assert_serves(lonely, proxy)


def test_an_entry_that_comes_late_is_waited_for(workloads: Workloads) -> None:
    workloads.api.withdraw(workloads.sockets[SERVER])
    proxy = workloads.server(backend(workloads))
    proxy.wait_for("Workload API issued no identity to this process .*PERMISSION_DENIED.*retrying")
    assert not proxy.matches(NO_LISTENER)
    workloads.api.restore(workloads.sockets[SERVER])
    assert_serves(workloads, proxy)
    assert len(proxy.matches("issued no identity to this process")) == 1  # said once, however often it was tried


def test_no_identity_in_time_is_one_clear_line_and_exit_1(lonely: Workloads) -> None:
    proxy = lonely.server("127.0.0.1:1", "--use-workload-api-timeout=1s")
    assert proxy.exit_code() == 1
    start = "error: timed out or failed waiting for initial SPIFFE Workload API update: no identity from"
    assert proxy.reason().startswith(f"{start} {lonely.sockets[SERVER]} within 1s (")
    assert not proxy.matches(NO_LISTENER)


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "UNIMPLEMENTED"])
def test_an_answer_that_no_new_attempt_changes_is_one_clear_line_and_exit_1(workloads: Workloads, status: str) -> None:
    workloads.api.publish(workloads.sockets[SERVER], SVIDS, Refusal(status, "not here"))
    proxy = workloads.server("127.0.0.1:1")
    assert proxy.exit_code() == 1
    assert proxy.reason() == f"error: the Workload API refused the request: {status}: not here"


# -- later


def test_a_dead_agent_changes_nothing_while_the_identity_is_valid(workloads: Workloads) -> None:
    proxy = workloads.server(backend(workloads))
    assert proxy.address
    workloads.api.stop()
    proxy.wait_for(f"Workload API unavailable .*keeping identity {SERVER}")
    assert_serves(workloads, proxy)
    workloads.api.start()
    proxy.wait_for("Workload API connection recovered")
    workloads.api.rotate_svids()
    proxy.wait_for(" generation=2 ")
    assert_serves(workloads, proxy)


def test_an_identity_that_is_withdrawn_is_used_for_a_while_and_may_come_back(workloads: Workloads) -> None:
    proxy = workloads.server(backend(workloads))
    assert proxy.address
    workloads.api.withdraw(workloads.sockets[SERVER])
    proxy.wait_for(f"Workload API issued no identity to this process .*keeping identity {SERVER} for now")
    assert_serves(workloads, proxy)
    workloads.api.restore(workloads.sockets[SERVER])
    proxy.wait_for("Workload API connection recovered")
    assert_serves(workloads, proxy)


def test_after_the_grace_a_withdrawn_identity_serves_nobody_until_it_comes_back(workloads: Workloads) -> None:
    flags = f"--listen={ANY_PORT}", f"--target={backend(workloads)}", f"--allow-id={CLIENT}"
    line = "server", f"--use-workload-api-addr={workloads.sockets[SERVER]}", *flags
    argv = [sys.executable, "-c", SHORT_GRACE, *with_workers(line)]
    proxy = workloads.watch(Proxy(argv, environ=bare_environment()))
    with tls_connection(proxy.address, workloads.identity(CLIENT)) as open_before:
        workloads.api.withdraw(workloads.sockets[SERVER])
        proxy.wait_for(f"identity {SERVER} has been withdrawn; closing new connections until")
        assert_closes_at_once(proxy)
        open_before.send(b"still")
        assert open_before.receive_exactly(5) == b"still"
    workloads.api.restore(workloads.sockets[SERVER])
    proxy.wait_for("identity is valid: accepting new connections")
    assert_serves(workloads, proxy)


def test_an_expired_identity_is_not_used_and_a_new_one_is(fleeting: Workloads) -> None:
    proxy = fleeting.server(backend(fleeting))
    assert_serves(fleeting, proxy)
    fleeting.api.stop()
    proxy.wait_for(f"identity {SERVER} has expired at .*; closing new connections until")
    assert_closes_at_once(proxy)
    fleeting.api.rotate_svids()
    fleeting.api.start()
    # An SVID here lives no longer than the pause between two attempts may take: the first one may have run out on the way.
    proxy.wait_for("identity is valid: accepting new connections|Workload API update rejected")
    fleeting.api.rotate_svids()
    proxy.wait_for("identity is valid: accepting new connections")
    proxy.stop()
    assert proxy.matches("stopped .* no_identity=1"), "an update can be logged behind it"


def test_an_open_connection_outlives_its_identity(fleeting: Workloads) -> None:
    proxy = fleeting.server(backend(fleeting))
    with tls_connection(proxy.address, fleeting.identity(CLIENT)) as peer:
        fleeting.api.stop()
        proxy.wait_for("has expired")
        peer.send(b"still")
        assert peer.receive_exactly(5) == b"still"


# -- other trust domains


def test_a_federated_peer_is_admitted_by_a_rule_that_names_its_domain(workloads: Workloads) -> None:
    workloads.federate()
    for rule in (["--allow-id", FOREIGNER], ["--allow-trust-domain", "b.test"], ["--allow-uri", "spiffe://b.test/**"]):
        assert_serves(workloads, workloads.server(backend(workloads), rules=rule), FOREIGNER)


def test_a_federated_peer_is_admitted_by_allow_all_which_warns(workloads: Workloads) -> None:
    workloads.federate()
    proxy = workloads.server(backend(workloads), rules=["--allow-all"])
    assert_serves(workloads, proxy, FOREIGNER)
    proxy.wait_for("warning: --allow-all admits every valid SVID of our own trust domain and of every federated trust domain")


@pytest.mark.parametrize("pattern", ["spiffe://*/client", "spiffe://*/**", "**"])
def test_a_federated_peer_is_not_meant_by_a_wildcard(workloads: Workloads, pattern: str) -> None:
    workloads.federate()
    proxy = workloads.server(backend(workloads), rules=["--allow-uri", pattern])
    assert alert_of(s_client(workloads, proxy.address, workloads.identity(FOREIGNER))) == BAD_CERTIFICATE
    proxy.wait_for(f"{FOREIGNER} reason=no-matching-rule$")
    assert_serves(workloads, proxy)


def test_the_end_of_a_federation_shuts_its_peers_out(workloads: Workloads) -> None:
    workloads.federate()
    proxy = workloads.server(backend(workloads), rules=["--allow-id", FOREIGNER])
    assert_serves(workloads, proxy, FOREIGNER)
    workloads.separate()
    proxy.wait_for("generation=2 .*trust_domains=a.test$")
    assert alert_of(s_client(workloads, proxy.address, workloads.identity(FOREIGNER))) == UNKNOWN_CA


# -- one of several identities


@pytest.mark.parametrize("wish", [["--spiffe-id", "spiffe://a.test/second"], ["--spiffe-hint", "inside"]])
def test_of_several_identities_the_wanted_one_is_used(workloads: Workloads, wish: list[str]) -> None:
    workloads.api.register(workloads.sockets[SERVER], Entry(parse_spiffe_id("spiffe://a.test/second"), hint="inside"))
    proxy = workloads.server(backend(workloads), *wish)
    proxy.wait_for("identity updated: spiffe_id=spiffe://a.test/second generation=1 ")
    assert_serves(workloads, proxy)


def test_a_wanted_identity_that_is_not_offered_is_waited_for(workloads: Workloads) -> None:
    proxy = workloads.server(backend(workloads), "--spiffe-id", "spiffe://a.test/second")
    proxy.wait_for(f"does not offer --spiffe-id spiffe://a.test/second, only {SERVER}; retrying")
    assert not proxy.matches(NO_LISTENER)
    workloads.api.register(workloads.sockets[SERVER], Entry(parse_spiffe_id("spiffe://a.test/second")))
    assert_serves(workloads, proxy)


# -- the disk


def files_open_for_writing(pid: int) -> list[str]:
    """Paths of what a process may write to; a descriptor that is closed while we look is none."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            flags = next(
                line for line in (entry.parents[1] / "fdinfo" / entry.name).read_text().splitlines() if "flags:" in line
            )
            name = os.readlink(entry)
            if int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY and name.startswith("/"):
                found.append(name)
    return found


def test_nothing_is_written_to_disk(workloads: Workloads) -> None:
    home = workloads.directory / "home"
    home.mkdir()
    environ = bare_environment() | {"HOME": str(home), "TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home)}
    environ["SSLKEYLOGFILE"] = str(home / "keys")
    flags = f"--listen={ANY_PORT}", f"--target={backend(workloads)}", f"--allow-id={CLIENT}"
    argv = tunnel_argv("server", f"--use-workload-api-addr={workloads.sockets[SERVER]}", *flags)
    proxy = workloads.watch(Proxy(argv, environ=environ | {"PYTHONDONTWRITEBYTECODE": "1"}, cwd=home))
    assert_serves(workloads, proxy)
    workloads.api.rotate_svids()
    proxy.wait_for(" generation=2 ")
    assert_serves(workloads, proxy)
    assert not [name for name in files_open_for_writing(proxy.pid) if not name.startswith("/dev/")]
    assert proxy.stop() == 0
    assert not list(home.iterdir())
