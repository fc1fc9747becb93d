"""Any exception while credentials are read or built is an error, and the previous credentials stay in use."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.support.cert_factory import key_of, make_certificate
from tests.support.credential_files import ROOT, Files, RecordingSink
from tests.support.recorded_log import RecordedLog
from tunnel.config.model import Access, PolicyFiles, TlsOptions
from tunnel.errors import ConfigError, Denial, IdentityError, IdentityFault, PeerDenied, WireError, WireFault
from tunnel.identity.credentials import PkiCredentials
from tunnel.listener import generation
from tunnel.listener.generation import GenerationConfig, build_generation, check_presentable
from tunnel.proxy import file_source
from tunnel.proxy.identity_source import reload_source
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.reloader import Reloader
from tunnel.status.counters import Counters
from tunnel.status.process_state import Reload

LEAF = make_certificate(issuer=ROOT, is_ca=None, usage=None, key=key_of("p256", 30), dns_names=("db.test",))
DISK = PkiCredentials((LEAF.certificate,), LEAF.key, (ROOT.certificate,))
CANARY = "canary-of-a-file"


class PanicException(BaseException):
    """Like a panic in Rust code of a library: not an Exception."""


CRASHES = [
    ValueError(CANARY),
    UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
    RecursionError(CANARY),
    MemoryError(CANARY),
    PanicException(CANARY),
    PeerDenied(Denial.UNREADABLE, "its subject"),
    WireError(WireFault.MALFORMED, "its subject"),
]
every_crash = pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: type(crash).__name__)


def raising(crash: BaseException) -> Callable[..., Any]:
    def fail(*_arguments: Any, **_more: Any) -> Any:
        raise crash

    return fail


def shown(error: BaseException) -> str:
    """All texts of an error that a log could contain."""
    return "".join(traceback.format_exception(error))


@every_crash
@pytest.mark.parametrize("step", ["load_authorities", "load_cert_and_key"])
def test_a_crash_while_files_are_read_is_a_failed_reload(
    files: Files, monkeypatch: pytest.MonkeyPatch, crash: BaseException, step: str
) -> None:
    kept = RecordingSink()
    source = files.source(kept)
    trio.run(source.run)
    monkeypatch.setattr(file_source, step, raising(crash))
    with pytest.raises(IdentityError) as refused:
        trio.run(reload_source, source)
    assert "the files cannot be used" in str(refused.value)
    assert CANARY not in str(refused.value)
    assert [number for number, _ in kept.used] == [1]


@every_crash
def test_a_crash_at_the_start_is_one_error(files: Files, monkeypatch: pytest.MonkeyPatch, crash: BaseException) -> None:
    kept = RecordingSink()
    monkeypatch.setattr(file_source, "load_cert_and_key", raising(crash))
    trio.run(files.source(kept).run)
    assert isinstance(kept.failure, IdentityError)
    assert CANARY not in shown(kept.failure)


@every_crash
def test_a_crash_while_a_generation_is_built_is_an_identity_error(
    monkeypatch: pytest.MonkeyPatch, crash: BaseException
) -> None:
    monkeypatch.setattr(generation, "TlsContext", raising(crash))
    with pytest.raises(IdentityError) as refused:
        build_generation(1, DISK, GenerationConfig(True, Access(()), "db.test"))
    with pytest.raises(IdentityError) as checked:
        check_presentable(DISK, TlsOptions())
    assert str(refused.value) == str(checked.value)  # `check` says what the proxy says
    assert CANARY not in shown(refused.value)


class CrashingParts:
    """An identity source, and a listener with a policy, whose reload raises."""

    def __init__(self, crash: Exception) -> None:
        self.crash = crash
        self.counters = Counters()
        self.tunnel = self.policy = self

    async def reload(self) -> None:
        raise self.crash

    async def load(self) -> None:
        raise self.crash


class RecordingStateReporter:
    """A state reporter that keeps the result of a reload."""

    def __init__(self) -> None:
        self.outcome: Reload | None = None

    def show_reloading(self) -> None:
        pass

    def show_reloaded(self, outcome: Reload) -> None:
        self.outcome = outcome


@pytest.mark.parametrize("crash", [RuntimeError(CANARY), MemoryError(CANARY), IdentityError(IdentityFault.FILE, "seen")])
def test_a_reload_that_raises_is_in_log_status_and_metric(crash: Exception) -> None:
    """If a thread cannot be started, the exception is raised by the caller."""
    log, state_reporter, crashing = RecordedLog(), RecordingStateReporter(), CrashingParts(crash)
    process: Any = SimpleNamespace(feeds={1: crashing}, listeners={"server": crashing}, state_reporter=state_reporter)
    process.shared = SimpleNamespace(access_log=None)
    trio.run(Reloader(process, log).reload)
    counters = crashing.counters
    assert state_reporter.outcome is not None
    for part in (state_reporter.outcome.certificates, state_reporter.outcome.policy):
        assert part
        assert CANARY not in part
    assert (counters.certificates.failed, counters.policy.failed) == (1, 1)
    assert [line.split(":")[0] for line in log.kept[:2]] == ["error reloading TLS configuration", "error reloading OPA policy"]
    assert all("; keeping the previous configuration" in line and CANARY not in line for line in log.kept[:2])


@pytest.mark.parametrize("crash", [ValueError(CANARY), RecursionError(CANARY), PanicException(CANARY)])
def test_a_crash_while_a_policy_is_read_is_a_config_error(monkeypatch: pytest.MonkeyPatch, crash: BaseException) -> None:
    reloadable_policy = ReloadablePolicy(PolicyFiles("nowhere.rego", "data.x.allow"), 1.0)
    monkeypatch.setattr("tunnel.policy.bundle.load_policy", raising(crash))
    with pytest.raises(ConfigError, match=r"Invalid rego policy or query: nowhere\.rego: internal error") as refused:
        trio.run(reloadable_policy.load)
    assert CANARY not in shown(refused.value)
