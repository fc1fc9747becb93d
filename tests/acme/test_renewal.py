"""A certificate is obtained at start or not at all, renewed in time, and kept while it is valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.issued_certificates import NAME, NOW, material
from tunnel.acme.material import encode_key, renew_due_at
from tunnel.acme.renewal import CertificateRenewer
from tunnel.acme.storage import Storage
from tunnel.config.acme import AcmeConfig
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.material import KeyMaterial
from tunnel.lazy_dataclass import replace
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.client_hello import ClientHello

PROBE = ClientHello(NAME, (b"acme-tls/1",))
DAY = 86400.0
BROKEN = "the ACME server is unavailable"
TAKEN = "cannot listen on port 443 for the challenge: address already in use"


class FakeAuthority:
    """An ACME server, a clock and a storage directory in this process."""

    def __init__(self, folder: Path) -> None:
        self.config = AcmeConfig(NAME, "a@example.test", "https://ca.test/dir", folder / "tunnel" / "acme")
        self.now = NOW.timestamp()
        self.slept: list[float] = []
        self.said: list[str] = []
        self.failures = 0  # that are still to come
        self.lasts = 90 * DAY
        self.accounts: list[bytes] = []  # one for each time that we were asked
        self.is_port_taken = False
        self.answers: list[tuple[bool, bool]] = []  # whether the listener answered, and the port for challenges
        self._is_open = False
        self.challenges = AcmeChallenges()

    def renewer(self, **changed: Any) -> CertificateRenewer:
        """Return a renewer, as after a restart of the process."""
        return CertificateRenewer(
            replace(self.config, **changed),
            self.challenges,
            self.said.append,
            issue=self.issue,
            open_port=self.open_port,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def issue(self, _: AcmeConfig, account: Any, show: Callable[[KeyMaterial], AbstractContextManager[None]]) -> KeyMaterial:
        self.accounts.append(encode_key(account))
        with show(material()):
            self.answers.append((self.challenges.admit(PROBE) is not None, self._is_open))
        if self.failures:
            self.failures -= 1
            raise IdentityError(IdentityFault.ACME, BROKEN)
        return material(start=NOW + timedelta(seconds=self.now - NOW.timestamp()), lasts=self.lasts)

    @contextmanager
    def open_port(self, challenges: AcmeChallenges, port: int) -> Iterator[None]:
        assert challenges is self.challenges
        assert port == self.config.challenge_port
        if self.is_port_taken:
            raise IdentityError(IdentityFault.ACME, TAKEN)
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def stored(self) -> KeyMaterial:
        kept = Storage(self.config).load()
        assert kept is not None
        return kept


@pytest.fixture
def authority(tmp_path: Path) -> FakeAuthority:
    return FakeAuthority(tmp_path)


# -- the first one


def test_the_first_certificate_is_requested_and_stored(authority: FakeAuthority) -> None:
    held = authority.renewer().obtain()
    assert authority.answers == [(True, True)]
    assert authority.stored().chain == held.chain
    assert authority.challenges.admit(PROBE) is None


def test_a_directory_that_cannot_be_used_is_an_error_at_once(authority: FakeAuthority) -> None:
    """A reload that adds an ACME identity waits for seconds only, and must say what is wrong."""
    authority.config.storage_dir.parent.write_text("a file")
    with pytest.raises(IdentityError, match=r"cannot read .*/tunnel/acme/.*: not a directory"):
        authority.renewer().obtain()
    assert authority.slept == []


def test_one_that_was_kept_is_used_without_asking(authority: FakeAuthority) -> None:
    held = authority.renewer().obtain()
    assert authority.renewer().obtain().chain == held.chain
    assert len(authority.accounts) == 1


def test_one_that_is_due_serves_until_it_ends_and_no_longer(authority: FakeAuthority) -> None:
    held = authority.renewer().obtain()
    authority.now += 89 * DAY
    renewer = authority.renewer()
    assert renewer.obtain().chain == held.chain
    fresh = renewer.renew_if_due()
    assert fresh is not None
    assert fresh.chain != held.chain
    authority.now += 90 * DAY
    assert authority.renewer().obtain().chain != fresh.chain


def test_one_that_cannot_be_read_is_replaced(authority: FakeAuthority) -> None:
    authority.renewer().obtain()
    (path,) = authority.config.storage_dir.rglob("certificate-*")
    path.write_bytes(b"rubbish")
    fresh = authority.renewer().obtain()
    assert len(authority.accounts) == 2
    assert any("requesting a new one" in line for line in authority.said)
    assert authority.stored().chain == fresh.chain


def test_the_account_is_the_same_each_time(authority: FakeAuthority) -> None:
    renewer = authority.renewer()
    renewer.obtain()
    authority.now += 61 * DAY
    renewer.renew_if_due()
    assert len(authority.accounts) == 2
    assert len(set(authority.accounts)) == 1


@pytest.mark.parametrize("failures", [1, 4])
def test_it_is_tried_again_after_longer_and_longer_pauses(authority: FakeAuthority, failures: int) -> None:
    authority.failures = failures
    authority.renewer().obtain()
    assert authority.slept == [5, 10, 20, 40][:failures]
    assert [line for line in authority.said if BROKEN in line][-1].startswith(f"ACME: attempt {failures} of 5: ")


def test_the_fifth_failure_is_final(authority: FakeAuthority) -> None:
    authority.failures = 5
    with pytest.raises(IdentityError, match=BROKEN):
        authority.renewer().obtain()
    assert len(authority.accounts) == 5
    assert authority.slept == [5, 10, 20, 40]


def test_at_the_start_a_port_that_is_taken_is_an_error(authority: FakeAuthority) -> None:
    authority.is_port_taken = True
    with pytest.raises(IdentityError, match="address already in use"):
        authority.renewer().obtain()
    assert authority.answers == []


def test_a_certificate_that_cannot_be_kept_serves_all_the_same(
    authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IdentityError(IdentityFault.ACME, "cannot write: disk full")

    monkeypatch.setattr(Storage, "save", fail)
    assert authority.renewer().obtain().chain
    assert "disk full: a restart will request a new certificate" in authority.said[-1]


# -- the next one


@pytest.mark.parametrize("lasts", [30.0, DAY, 90 * DAY])
def test_it_is_renewed_when_a_third_of_its_life_is_left(authority: FakeAuthority, lasts: float) -> None:
    authority.lasts = lasts
    renewer = authority.renewer()
    held = renewer.obtain()
    assert renew_due_at(held.chain).timestamp() == NOW.timestamp() + lasts * 2 / 3
    authority.now += lasts * 2 / 3 - 1
    assert renewer.renew_if_due() is None
    authority.now += 1
    fresh = renewer.renew_if_due()
    assert fresh is not None
    assert fresh.chain != held.chain
    assert authority.stored().chain == fresh.chain
    assert renewer.renew_if_due() is None


def test_a_renewal_is_answered_by_the_tunnel_when_the_port_is_its_own(authority: FakeAuthority) -> None:
    renewer = authority.renewer()
    renewer.obtain()
    authority.is_port_taken = True
    authority.now += 61 * DAY
    assert renewer.renew_if_due() is not None
    assert authority.answers == [(True, True), (True, False)]


def test_a_renewal_is_answered_on_the_challenges_port_too_when_it_is_free(authority: FakeAuthority) -> None:
    renewer = authority.renewer()
    renewer.obtain()
    authority.now += 61 * DAY
    renewer.renew_if_due()
    assert authority.answers == [(True, True), (True, True)]


def test_a_failed_renewal_leaves_the_certificate_that_works(authority: FakeAuthority) -> None:
    renewer = authority.renewer()
    held = renewer.obtain()
    authority.now += 61 * DAY
    authority.failures = 1
    with pytest.raises(IdentityError, match=BROKEN):
        renewer.renew_if_due()
    assert authority.stored().chain == held.chain
    assert renewer.renew_if_due() is not None


# -- when to look


@pytest.mark.parametrize(
    ("lasts", "interval", "expected"),
    [
        (30, 600, 20),  # a certificate of 30 seconds is renewed within 45
        (30, 1, 1),
        (90 * DAY, 600, 600),
        (900, 600, 600),
        (0, 600, 5),  # due at once, but not asked for without end
        (0, 2, 2),
    ],
)
def test_the_next_look_is_when_it_is_due_or_at_the_interval(
    authority: FakeAuthority, lasts: float, interval: float, expected: float
) -> None:
    authority.lasts = lasts
    renewer = authority.renewer(check_interval=interval)
    renewer.obtain()
    assert renewer.seconds_to_next_check() == expected


@pytest.mark.parametrize(
    ("left", "delays"),
    [
        (10.0, [5, 10, 20, 40, 80, 120, 120]),
        (-DAY, [5, 10, 20, 40, 80, 120, 120]),
        (7200.0, [5, 10, 20, 40, 80, 160, 320, 360, 360]),
        (29 * DAY, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]),
    ],
)
def test_failed_renewals_are_tried_again_the_more_often_the_less_time_is_left(
    authority: FakeAuthority, left: float, delays: list[float]
) -> None:
    renewer = authority.renewer()
    held = renewer.obtain()
    authority.now = held.chain[0].not_after.timestamp() - left
    authority.failures = len(delays)
    seen = []
    for _ in delays:
        with pytest.raises(IdentityError):
            renewer.renew_if_due()
        seen.append(renewer.seconds_to_next_check())
    assert seen == delays
    assert renewer.renew_if_due() is not None
    assert renewer.seconds_to_next_check() == authority.config.check_interval


def test_a_clock_that_is_set_neither_ends_nor_delays_the_looks(authority: FakeAuthority) -> None:
    renewer = authority.renewer()
    renewer.obtain()
    authority.now -= 365 * DAY
    assert renewer.renew_if_due() is None
    assert renewer.seconds_to_next_check() == authority.config.check_interval
    authority.now += (365 + 89) * DAY
    assert renewer.seconds_to_next_check() <= authority.config.check_interval
    assert renewer.renew_if_due() is not None
