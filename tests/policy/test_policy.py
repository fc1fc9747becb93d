"""The pool of evaluator processes: a hanging, growing or killed evaluation does not affect the next ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("regopy")

from tunnel.errors import Denial, PeerDenied, PolicyError, PolicyFault
from tunnel.policy.bundle import Module, PolicySource
from tunnel.policy.evaluator_process import Evaluator
from tunnel.policy.policy import Policy

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "certificates.json").read_text())
LEAF = b64decode(VECTORS["rsa"]["Raw"])
OTHER = b64decode(VECTORS["pss-32"]["Raw"])
QUERY = "data.policy.allow"
LONG = 60.0  # seconds that no test needs
SOON = 0.3

CLIENT = 'allow { input.certificate.Subject.CommonName == "client" }'
NEVER_ENDS = "r := numbers.range(1, 3000)\nallow { a := r[_]; b := r[_]; c := r[_]; a + b + c < 0 }"
EATS = "allow { x := [y | y := numbers.range(1, 50000000)[_]]; count(x) > 0 }"
# Hangs for one name and answers for the others.
HANGS_FOR_CLIENT = f"{CLIENT.replace('allow', 'named')}\nallow {{ not named }}\nallow {{ named; slow }}\n" + NEVER_ENDS.replace(
    "allow", "slow"
)


def source(rules: str) -> PolicySource:
    return PolicySource((Module("policy.rego", f"package policy\n{rules}\n", 0),))


def soon(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def open_policy(rules: PolicySource, query: str) -> Policy:
    """A policy that is ready; closed again if it cannot be."""
    policy = Policy(query)
    try:
        policy.load(rules)
    except PolicyError:
        policy.close()
        raise
    return policy


@pytest.fixture
def opened() -> Iterator[Callable[..., Policy]]:
    policies: list[Policy] = []

    def make(rules: str = CLIENT, **limits: int) -> Policy:
        policy = Policy(QUERY, **limits)
        policies.append(policy)
        policy.load(source(rules))
        return policy

    yield make
    for policy in policies:
        policy.close()


def living() -> set[int]:
    """The evaluators among our children."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"from tunnel.policy.evaluator import main" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_until(is_so: Callable[[], bool]) -> None:
    end = soon()
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def denied(policy: Policy, deadline: float, leaf: bytes = LEAF) -> str:
    with pytest.raises(PeerDenied) as caught:
        policy.admits(leaf, deadline)
    assert caught.value.reason is Denial.POLICY_ERROR
    return str(caught.value)


def test_a_peer_is_admitted_or_not(opened: Callable[..., Policy]) -> None:
    policy = opened()
    assert policy.admits(LEAF, soon()) is True
    assert policy.admits(OTHER, soon()) is False


def test_large_numbers_of_a_certificate_are_exact(opened: Callable[..., Policy]) -> None:
    number = VECTORS["rsa"]["SerialNumber"]
    assert opened(f"allow {{ input.certificate.SerialNumber == {number} }}").admits(LEAF, soon())
    modulus = VECTORS["rsa"]["PublicKey"]["N"]
    assert opened(f"allow {{ input.certificate.PublicKey.N == {modulus} }}").admits(LEAF, soon())


def test_an_invalid_policy_is_refused_at_start_and_leaves_no_process() -> None:
    before = living()
    with pytest.raises(PolicyError, match=r"policy.rego:2: ") as caught:
        open_policy(source("allow {"), QUERY)
    assert caught.value.reason is PolicyFault.INVALID
    assert living() == before


@pytest.mark.parametrize("query", ["", "  ", "data\0", "data.["])
def test_an_invalid_query_is_refused_at_start(query: str) -> None:
    with pytest.raises(PolicyError) as caught:
        open_policy(source(CLIENT), query)
    assert caught.value.reason is PolicyFault.INVALID


def test_an_invalid_policy_keeps_the_previous_one_in_force(opened: Callable[..., Policy]) -> None:
    policy = opened()
    with pytest.raises(PolicyError):
        policy.load(source("allow { not x }"))
    assert policy.admits(LEAF, soon()) is True
    policy.load(source("allow = false"))
    assert policy.admits(LEAF, soon()) is False


def test_an_evaluation_without_end_fails_at_the_deadline_and_the_next_policy_works(opened: Callable[..., Policy]) -> None:
    policy = opened(NEVER_ENDS)
    assert "unauthorized: policy returned error: evaluation timed out" in denied(policy, soon(SOON))
    policy.load(source(CLIENT))
    assert policy.admits(LEAF, soon()) is True


def test_an_evaluation_is_killed_at_the_memory_limit(opened: Callable[..., Policy]) -> None:
    policy = opened(EATS, memory=64 * 1024 * 1024)
    assert "more than 64 MiB of memory used" in denied(policy, soon())
    policy.load(source(CLIENT))
    assert policy.admits(LEAF, soon()) is True


def test_a_hanging_evaluation_does_not_block_the_others(opened: Callable[..., Policy]) -> None:
    policy = opened(HANGS_FOR_CLIENT)
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(denied, policy, soon())
        assert [policy.admits(OTHER, soon()) for _ in range(20)] == [True] * 20
        assert not hanging.done()
        policy.close()


def test_a_caller_behind_a_stuck_evaluation_gets_the_replacement_evaluator(opened: Callable[..., Policy]) -> None:
    policy = opened(HANGS_FOR_CLIENT, evaluators=1)
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(denied, policy, soon(SOON))
        wait_until(lambda: not policy._idle)
        assert policy.admits(OTHER, soon()) is True
        assert "evaluation timed out" in hanging.result()


def test_a_waiting_caller_keeps_its_own_deadline(opened: Callable[..., Policy]) -> None:
    policy = opened(NEVER_ENDS, evaluators=1)
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(denied, policy, soon())
        wait_until(lambda: not policy._idle)
        assert "all evaluators are busy" in denied(policy, soon(SOON))
        assert not hanging.done()
        policy.close()


def test_callers_that_time_out_while_waiting_kill_no_evaluator(opened: Callable[..., Policy]) -> None:
    policy = opened(evaluators=1)
    (evaluator,) = policy._idle
    policy._idle.remove(evaluator)  # busy, as if
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(denied, policy, soon(SOON)) for _ in range(8)]
        assert all("all evaluators are busy" in each.result(LONG) for each in waiting)
    policy._release(evaluator)
    assert policy.admits(LEAF, soon()) is True
    assert living() == {evaluator.pid}


def test_a_new_policy_decides_while_the_old_one_still_hangs(opened: Callable[..., Policy]) -> None:
    policy = opened(NEVER_ENDS)
    with ThreadPoolExecutor() as threads:
        hanging = [threads.submit(denied, policy, soon()) for _ in range(2)]
        wait_until(lambda: not policy._idle)
        policy.load(source(CLIENT))
        assert policy.admits(LEAF, soon()) is True
        assert not any(each.done() for each in hanging)
        policy.close()


def test_an_evaluator_that_is_killed_is_replaced(opened: Callable[..., Policy]) -> None:
    policy = opened(evaluators=1)
    (pid,) = living()
    os.kill(pid, signal.SIGKILL)
    assert "the evaluator has exited" in denied(policy, soon())
    assert policy.admits(LEAF, soon()) is True
    assert living() != {pid}


def test_a_killed_evaluator_fails_the_pending_evaluation_at_once(opened: Callable[..., Policy]) -> None:
    policy = opened(NEVER_ENDS, evaluators=1)
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(denied, policy, soon())
        wait_until(lambda: not policy._idle)
        (pid,) = living()
        os.kill(pid, signal.SIGKILL)
        assert "the evaluator has exited: killed" in hanging.result(LONG)


def test_close_fails_pending_evaluations_and_leaves_no_process(opened: Callable[..., Policy]) -> None:
    policy = opened(NEVER_ENDS)
    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(denied, policy, soon()) for _ in range(6)]
        wait_until(lambda: not policy._idle)
        policy.close()
        for each in asking:
            assert "policy returned error" in each.result(LONG)
    assert "the policy is closed" in denied(policy, soon())
    assert living() == set()
    with pytest.raises(PolicyError):
        policy.load(source(CLIENT))
    policy.close()  # once more does no harm


def test_fifty_concurrent_evaluations_succeed(opened: Callable[..., Policy]) -> None:
    policy = opened()
    with ThreadPoolExecutor(50) as threads:
        leaves = [LEAF, OTHER] * 100
        answers = list(threads.map(lambda leaf: policy.admits(leaf, soon()), leaves))
    assert answers == [True, False] * 100


def test_reloads_during_evaluations_lose_none(opened: Callable[..., Policy]) -> None:
    policy = opened()
    stop = threading.Event()

    def keep_asking() -> int:
        asked = 0
        while not stop.is_set():
            assert policy.admits(LEAF, soon()) is True
            asked += 1
        return asked

    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(keep_asking) for _ in range(4)]
        for number in range(8):
            policy.load(source(f"{CLIENT}\nnumber = {number}"))
        stop.set()
        assert all(each.result(LONG) > 0 for each in asking)


def test_an_unreadable_certificate_is_refused_without_an_evaluation(opened: Callable[..., Policy]) -> None:
    with pytest.raises(PeerDenied) as caught:
        opened().admits(b"\x30\x00", soon())
    assert caught.value.reason is Denial.UNREADABLE


def test_an_evaluator_inherits_no_descriptor_and_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "x")
    with (tmp_path / "inherited").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        evaluator = Evaluator(2**30)
        try:
            evaluator.load(source('allow { not opa.runtime().env.SECRET; print("noise") }'), QUERY, soon())
            open_files = {os.readlink(each) for each in Path(f"/proc/{evaluator.pid}/fd").iterdir()}
            assert evaluator.evaluate("{}", soon()) is True
        finally:
            evaluator.kill()
            evaluator.reap()
    assert {name.partition(":")[0] for name in open_files} <= {"socket", "/dev/null"}
    assert sum(name.startswith("socket") for name in open_files) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_of_a_terminal_or_a_service_manager_do_not_end_it(number: signal.Signals) -> None:
    evaluator = Evaluator(2**30)
    try:
        evaluator.load(source("allow { true }"), QUERY, soon())
        assert os.getsid(evaluator.pid) == evaluator.pid
        os.kill(evaluator.pid, number)
        assert evaluator.evaluate("{}", soon()) is True
    finally:
        evaluator.kill()
        evaluator.reap()


def test_an_evaluator_exits_with_its_parent_even_during_an_evaluation() -> None:
    program = f"""
import sys
from tunnel.policy.evaluator_process import Evaluator
from tunnel.policy.bundle import Module, PolicySource
evaluator = Evaluator(2**30)
evaluator.load(PolicySource((Module("p", "package policy\\n" + {NEVER_ENDS!r}, 0),)), {QUERY!r}, 1e9)
print(evaluator.pid, flush=True)
evaluator.evaluate("{{}}", 1e9)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: is_gone(pid))


def test_without_the_engine_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "regopy.py").write_text("raise ImportError('no such module')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PolicyError, match=r"pip install 'spiffe-tunnel\[opa\]'") as caught:
        open_policy(source(CLIENT), QUERY)
    assert caught.value.reason is PolicyFault.NO_ENGINE
