"""A certificate from an ACME server is published when it is obtained and at each renewal."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.recorded_log import RecordedLog
from tests.support.tls_ends import identity, lasting_authority
from tunnel.config.model import IdentityConfig, NoIdentity
from tunnel.errors import IdentityError, IdentityFault, TunnelError
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.keystore.material import KeyMaterial
from tunnel.proxy.acme_source import AcmeSource
from tunnel.proxy.identity_source import reload_source
from tunnel.tls.acme_challenge import AcmeChallenges

ROOT = lasting_authority()
FIRST, SECOND = (KeyMaterial(one.chain, one.leaf.key) for one in (identity("spiffe://a.test/1"), identity("spiffe://a.test/2")))
BROKEN = IdentityError(IdentityFault.ACME, "the authority is out to lunch\x1b")

Outcome = KeyMaterial | IdentityError | None


class FakeRenewer:
    """Returns the given outcomes, then requests the end; records the threads of its calls."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.say: Callable[[str], None] = print
        self.on_exhausted: Callable[[], None] = print
        self.threads: set[int] = set()
        self.looks = 0

    def obtain(self) -> KeyMaterial:
        self.say("obtaining")
        found = self.renew_if_due()
        assert found is not None
        return found

    def renew_if_due(self) -> KeyMaterial | None:
        self.threads.add(threading.get_ident())
        if not self._outcomes:
            trio.from_thread.run_sync(self.on_exhausted)
            return None
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, IdentityError):
            raise outcome
        return outcome

    def seconds_to_next_check(self) -> float:
        self.looks += 1
        return 0.0


class RecordingSink:
    """Records its calls."""

    def __init__(self) -> None:
        self.used: list[tuple[int, PkiCredentials]] = []
        self.challenges: AcmeChallenges | None = None
        self.failure: TunnelError | None = None

    async def use(self, number: int, credentials: Credentials) -> None:
        assert self.challenges is not None, "an ACME server is expected before it is asked"
        assert isinstance(credentials, PkiCredentials)
        self.used.append((number, credentials))

    def accept_challenges(self, challenges: AcmeChallenges) -> None:
        self.challenges = challenges

    def confirm(self) -> None:
        raise AssertionError

    def withdraw(self) -> None:
        raise AssertionError

    def fail(self, error: TunnelError) -> None:
        self.failure = error


class AcmeSourceHarness:
    """An AcmeSource with a fake renewer, and the records of sink and log."""

    def __init__(self, ca_bundle: Path, *outcomes: Outcome) -> None:
        self.keeper, self.sink, self.lines = FakeRenewer(*outcomes), RecordingSink(), RecordedLog()
        self.ca_bundle = ca_bundle
        config = IdentityConfig(NoIdentity(), str(ca_bundle))
        self.source = AcmeSource(self._open, config, self.sink, self.lines, {})

    def _open(self, challenges: AcmeChallenges, say: Callable[[str], None]) -> Any:
        self.keeper.say = say
        return self.keeper

    def run(self, then: Callable[[], Any] | None = None) -> None:
        """Run until the renewer has no more outcomes; await `then` at the end."""

        async def main() -> None:
            with trio.CancelScope() as scope:
                self.keeper.on_exhausted = scope.cancel
                await self.source.run()
            if then is not None:
                await then()

        trio.run(main)

    @property
    def chains(self) -> list[tuple[int, Any]]:
        return [(number, credentials.chain) for number, credentials in self.sink.used]


@pytest.fixture
def ca_bundle(tmp_path: Path) -> Path:
    path = tmp_path / "roots.pem"
    path.write_bytes(ROOT.certificate.pem)
    return path


def test_the_first_is_published_with_the_authorities(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST)
    harness.run()
    ((number, credentials),) = harness.sink.used
    assert number == 1
    assert credentials.chain == FIRST.chain
    assert credentials.authorities == (ROOT.certificate,)
    assert "obtaining" in harness.lines.kept


def test_a_newer_one_is_published_when_there_is_one(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST, None, None, SECOND, None)
    harness.run()
    assert harness.keeper.looks == 5  # it is asked how long to wait, each time
    assert harness.chains == [(1, FIRST.chain), (2, SECOND.chain)]


def test_without_a_first_one_the_process_ends(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, BROKEN)
    harness.run()
    assert harness.sink.failure is BROKEN
    assert harness.chains == []


def test_a_failed_renewal_is_logged_and_retried(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST, BROKEN, SECOND)
    harness.run()
    assert harness.chains == [(1, FIRST.chain), (2, SECOND.chain)]
    assert "ACME: the authority is out to lunch\\x1b; keeping the current certificate retry_in=0s" in harness.lines.kept
    assert harness.sink.failure is None


def test_a_reload_reads_the_authorities_and_asks_for_nothing(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST)
    other = lasting_authority("b.test").certificate

    def reload() -> Awaitable[None]:
        ca_bundle.write_bytes(other.pem)
        return reload_source(harness.source)

    harness.run(reload)
    assert harness.chains == [(1, FIRST.chain), (2, FIRST.chain)]
    assert harness.sink.used[-1][1].authorities == (other,)


def test_authorities_that_cannot_be_read_leave_what_is_in_use(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST)

    def reload() -> Awaitable[None]:
        ca_bundle.unlink()
        return reload_source(harness.source)

    with pytest.raises(IdentityError):
        harness.run(reload)
    assert harness.chains == [(1, FIRST.chain)]


def test_what_blocks_does_so_on_another_thread(ca_bundle: Path) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST, SECOND)
    harness.run()
    assert harness.keeper.threads
    assert threading.get_ident() not in harness.keeper.threads


def test_a_reload_during_a_renewal_does_not_bring_back_the_old_one(ca_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST)
    begins, is_used = trio.Event(), trio.Event()

    async def use_slowly(number: int, credentials: Credentials) -> None:
        begins.set()
        await is_used.wait()
        await RecordingSink.use(harness.sink, number, credentials)

    async def renew_and_reload() -> None:
        monkeypatch.setattr(harness.sink, "use", use_slowly)
        harness.keeper.renew_if_due = lambda: SECOND  # type: ignore[method-assign]
        old = await harness.source.read()
        assert old is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.source._renew)
            await begins.wait()
            nursery.start_soon(harness.source.publish, old)
            await trio.testing.wait_all_tasks_blocked()
            is_used.set()

    harness.run(renew_and_reload)
    assert harness.chains == [(1, FIRST.chain), (2, SECOND.chain)]


def test_a_slow_reload_of_the_old_one_does_not_replace_a_newer_one(ca_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = AcmeSourceHarness(ca_bundle, FIRST)
    began, overtaken, complete = threading.Event(), threading.Event(), harness.source._load_authorities

    def slowly(material: KeyMaterial) -> PkiCredentials:
        if material is FIRST and harness.sink.used:
            began.set()
            overtaken.wait(60)
        return complete(material)

    async def use(number: int, credentials: Credentials) -> None:
        await RecordingSink.use(harness.sink, number, credentials)
        if number > 1:
            overtaken.set()

    monkeypatch.setattr(harness.source, "_load_authorities", slowly)
    monkeypatch.setattr(harness.sink, "use", use)

    async def reload_and_renew() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload_source, harness.source)
            await trio.to_thread.run_sync(began.wait)
            harness.keeper.renew_if_due = lambda: SECOND  # type: ignore[method-assign]
            await harness.source._renew()

    harness.run(reload_and_renew)
    assert harness.chains == [(1, FIRST.chain), (2, SECOND.chain)]
