"""Against Pebble, Let's Encrypt's own test authority: a certificate is had, and the next one while we serve."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.configs import listener_config
from tests.support.pebble import Pebble
from tests.support.plain_backends import free_port
from tests.support.processes import Proxy, bare_environment, eventually, tunnel_argv
from tunnel.acme import client
from tunnel.acme.material import renew_due_at
from tunnel.acme.renewal import CertificateRenewer
from tunnel.authz.authorizer import allow_anonymous
from tunnel.config.acme import AcmeConfig
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.material import KeyMaterial
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation
from tunnel.listener.shared_resources import open_shared_resources
from tunnel.listener.tunnel import Tunnel
from tunnel.log import Category
from tunnel.net.address import TcpAddress
from tunnel.net.listen import open_listener
from tunnel.relay.acme_handshake import AcmeHandshake
from tunnel.relay.loop import Loop
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.context import Presented, TlsContext

NAME = "www.example.test"
LIFETIME = 30  # seconds


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with closing(Pebble(tmp_path_factory.mktemp("pebble"), lifetime=LIFETIME)) as running:
        yield running


@pytest.fixture
def config(pebble: Pebble, tmp_path: Path) -> AcmeConfig:
    """Settings for a certificate of this test's own."""
    return replace(pebble.config(NAME), storage_dir=tmp_path / "tunnel" / "acme")


def open_renewer(config: AcmeConfig, challenges: AcmeChallenges | None = None, **fields: Any) -> CertificateRenewer:
    """The real one but for its pauses."""
    return CertificateRenewer(config, challenges or AcmeChallenges(), print, issue=client.issue, sleep=lambda _: None, **fields)


def refused(config: AcmeConfig) -> str:
    """Why no certificate can be had."""
    with pytest.raises(IdentityError) as caught:
        open_renewer(config).obtain()
    assert caught.value.reason is IdentityFault.ACME
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"no certificate for {config.domain} from {config.directory_url}: ")


def key_bytes(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


# -- the first certificate


def test_a_certificate_is_had_with_its_chain(config: AcmeConfig) -> None:
    held = open_renewer(config).obtain()
    leaf, issuer = (x509.load_der_x509_certificate(one.der) for one in held.chain)
    leaf.verify_directly_issued_by(issuer)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert key_bytes(leaf.public_key()) == key_bytes(held.private_key.public_key())
    assert (leaf.not_valid_after_utc - renew_due_at(held.chain)).total_seconds() < LIFETIME / 2


def test_the_challenges_port_is_free_afterwards(config: AcmeConfig) -> None:
    open_renewer(config).obtain()
    socket.create_server(("", config.challenge_port)).close()


def test_after_a_restart_the_account_is_found_again(pebble: Pebble, config: AcmeConfig) -> None:
    late = datetime.now(UTC).timestamp() + 3600
    first = open_renewer(config).obtain()
    count = pebble.process.matches("accounts in memory")[-1]
    second = open_renewer(config, clock=lambda: late).obtain()  # an hour later the kept one is over
    assert second.chain != first.chain
    assert pebble.process.matches("accounts in memory")[-1] == count


# -- what goes wrong


def test_an_authority_that_rejects_good_nonces_is_asked_again(tmp_path: Path) -> None:
    with closing(Pebble(tmp_path, rejected_nonces=10)) as fussy:
        assert open_renewer(fussy.config(NAME)).obtain().chain


def test_an_authority_that_does_not_reach_us_says_so(config: AcmeConfig) -> None:
    said = refused(replace(config, challenge_port=free_port()))
    assert said.startswith("challenge failed: ")
    assert f"Failed to connect to 127.0.0.1:{config.challenge_port}" in said


def test_a_directory_that_is_not_trusted_is_not_used(config: AcmeConfig) -> None:
    said = refused(replace(config, ca_trust=None))
    assert said.startswith("the directory's certificate is not trusted (name its roots in SSL_CERT_FILE): ")


def test_an_authority_whose_terms_are_refused_refuses_us(config: AcmeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    register = client.messages.NewRegistration.from_data

    def disagree(*, email: str, terms_of_service_agreed: bool) -> Any:
        assert terms_of_service_agreed, "the operator has agreed, or the flags are refused"
        return register(email=email)

    monkeypatch.setattr(client.messages.NewRegistration, "from_data", disagree)
    assert "agree" in refused(config)


def test_a_url_that_is_no_directory_is_told(pebble: Pebble, config: AcmeConfig) -> None:
    url = pebble.url("nothing")
    assert refused(replace(config, directory_url=url)) == f"{url} returned HTTP status 404"


# -- the next certificate, while serving


class RecordedLog:
    """A log in memory, written by the thread that serves."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def is_enabled(self, _: Category) -> bool:
        return True

    def write(self, message: str, _: Category = Category.OTHER, *, at: float | None = None) -> None:
        self.lines.append(message)


def generation(number: int, held: KeyMaterial) -> Generation:
    presented = Presented(held.chain, held.private_key)
    made = TlsContext(presented, allow_anonymous("all"), is_server=True, accepts_acme=True)
    return Generation(number, NAME, held.chain[0].not_after, False, made, None)


class Served:
    """A tunnel on the challenge's own port, on a thread of its own."""

    def __init__(self, port: int, challenges: AcmeChallenges, held: KeyMaterial, target: int) -> None:
        self.log = RecordedLog()
        self._loop = Loop()
        config = listener_config(target=TcpAddress("127.0.0.1", str(target)))
        shared = open_shared_resources(self._loop, self.log)  # type: ignore[arg-type]
        self.tunnel = Tunnel(shared, config, lambda _address, _answer: None)
        self.tunnel.new_handshake = partial(AcmeHandshake, challenges=challenges)
        self.tunnel.swap(generation(1, held))
        self.tunnel.open(open_listener(TcpAddress("127.0.0.1", str(port))))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._loop.turn(0.01)
        self.tunnel.drain()
        self.tunnel.abort()
        self._loop.turn(0)
        self._loop.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def serial_shown(port: int) -> int:
    """The certificate that an ordinary client sees."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock, made.wrap_socket(sock) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


@contextmanager
def backend() -> Iterator[int]:
    """A port where connections are taken, and nothing else happens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_renewal_is_answered_where_we_serve(config: AcmeConfig) -> None:
    challenges = AcmeChallenges()
    clock = [datetime.now(UTC).timestamp()]
    keeper = open_renewer(config, challenges, clock=lambda: clock[0])
    held = keeper.obtain()
    with backend() as target, closing(Served(config.challenge_port, challenges, held, target)) as served:
        assert serial_shown(config.challenge_port) == held.chain[0].serial_number
        assert keeper.renew_if_due() is None
        clock[0] += 3600
        fresh = keeper.renew_if_due()
        assert fresh is not None
        assert served.tunnel.counters.acme_challenge >= 1
        assert any(line.startswith("closed ACME challenge from 127.0.0.1:") for line in served.log.lines)
        assert serial_shown(config.challenge_port) == held.chain[0].serial_number
        served.tunnel.swap(generation(2, fresh))
        assert serial_shown(config.challenge_port) == fresh.chain[0].serial_number != held.chain[0].serial_number
        assert served.tunnel.counters.crashed == 0


# -- the whole process


def test_a_server_gets_its_certificate_renews_it_and_keeps_it(tmp_path: Path) -> None:
    with closing(Pebble(tmp_path, lifetime=12)) as short, backend() as target:
        port = short.challenge_port
        argv = tunnel_argv(
            "server",
            f"--listen=127.0.0.1:{port}",
            f"--target=127.0.0.1:{target}",
            "--disable-authentication",
            f"--auto-acme-cert={NAME}",
            "--auto-acme-email=a@example.test",
            "--auto-acme-agree-to-tos",
            f"--auto-acme-testca={short.url('dir')}",
            f"--auto-acme-alt-tls-alpn-port={port}",
            "--auto-acme-renew-check-interval=1s",
            "--close-timeout=1s",  # the target reads nothing and ends nothing
        )
        environ = {**bare_environment(), "SSL_CERT_FILE": str(short.roots), "XDG_DATA_HOME": str(tmp_path / "data")}
        with closing(Proxy(argv, environ=environ)) as server:
            assert server.address == ("127.0.0.1", port)
            first = serial_shown(port)
            server.wait_for("ACME: got a certificate", count=2)
            server.wait_for("closed ACME challenge from 127.0.0.1:")
            eventually(lambda: serial_shown(port) != first, "the next certificate is shown")
            assert server.stop() == 0
        kept = list((tmp_path / "data" / "tunnel" / "acme").rglob("*.pem"))
        assert sorted(path.name.partition("-")[0] for path in kept) == ["account", "certificate"]


def test_a_server_whose_settings_cannot_be_ends_with_the_reason() -> None:
    argv = tunnel_argv(
        "server",
        "--listen=127.0.0.1:0",
        "--target=127.0.0.1:1",
        "--disable-authentication",
        f"--auto-acme-cert={NAME}",
        "--auto-acme-email=a@example.test",
        "--auto-acme-agree-to-tos",
        "--auto-acme-ca=http://ca.test/dir",
    )
    with closing(Proxy(argv, environ=bare_environment())) as server:
        assert server.exit_code() == 1
        assert "expected an https:// URL" in server.reason()


def test_a_server_can_be_stopped_while_it_waits_for_its_certificate(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        argv = tunnel_argv(
            "server",
            "--listen=127.0.0.1:0",
            "--target=127.0.0.1:1",
            "--disable-authentication",
            f"--auto-acme-cert={NAME}",
            "--auto-acme-email=a@example.test",
            "--auto-acme-agree-to-tos",
            f"--auto-acme-ca=https://127.0.0.1:{silent.getsockname()[1]}/dir",
        )
        with closing(Proxy(argv, environ={**bare_environment(), "XDG_DATA_HOME": str(tmp_path)})) as server:
            server.wait_for("ACME: requesting a certificate for ")
            assert server.stop() == 0  # long before five attempts are over
