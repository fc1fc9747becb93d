"""The guard fails if a unit of work costs more than recorded, and names what has grown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench.callgrind import NO_SYMBOL, Profile, parse_profile
from bench.counts import Counts, count_profiles, count_system_calls, find_growth
from bench.guard import checked_out, format_counts, main, report_growth
from bench.peers import CHECKOUT
from bench.processes import BenchError
from bench.recorded import Recorded, read_record, write_record
from bench.system_calls import parse_calls
from tests.support.requirements import program

DUMP = """\
events: Ir
ob=(1) /usr/bin/python3.11
fl=(1) ???
fn=(10) 0x0000000000515170
0 70
fn=(11) _PyEval_EvalFrameDefault'2
12 100
cob=(2) /usr/lib/libc.so.6
cfi=(2) malloc.c
cfn=(12) malloc
calls=3 +5
* 40
+2 5

ob=(2)
fn=(12)
7 30
cfn=(13) _int_malloc
calls=1 9
7 10
fn=(13)
9 10
""".splitlines()

BASE = Counts(
    {"OpenSSL": 1000.0, "interpreter": 200.0, "libc": 100.0, "other": 1.0},
    50.0,
    {"libc.so.6:malloc": 60.0, "python3.11:dict_get": 90.0},
    {"recvfrom": 2.0, "sendto": 2.0, "epoll_wait": 2.0},
)


def scaled(counts: Counts, part: str, factor: float) -> Counts:
    return replace(counts, instructions={**counts.instructions, part: counts.instructions[part] * factor})


def test_a_dump_has_own_instructions_by_function_and_calls_by_callee() -> None:
    profile = parse_profile(DUMP)
    assert profile.instructions == {
        ("python3.11", NO_SYMBOL): 70,
        ("python3.11", "_PyEval_EvalFrameDefault"): 105,
        ("libc.so.6", "malloc"): 30,
        ("libc.so.6", "_int_malloc"): 10,
    }
    assert profile.calls == {("libc.so.6", "malloc"): 3, ("libc.so.6", "_int_malloc"): 1}
    assert profile.allocations() == 3


def test_a_call_is_counted_once_if_another_thread_interrupts_its_line() -> None:
    lines = [
        "12 epoll_wait(3,  <unfinished ...>",
        "13 write(4, ..., 8) = 8",
        "12 <... epoll_wait resumed>[], 256, 50) = 0",
        "12 --- SIGTERM {si_signo=SIGTERM} ---",
        "13 +++ exited with 0 +++",
        "getpid() = 12",
    ]
    assert parse_calls(lines) == {"epoll_wait": 1, "write": 1, "getpid": 1}


def test_each_number_is_the_lowest_of_the_batches() -> None:
    one = Profile(
        Counter({("libpython3.11.so.1.0", "a"): 20, ("_rust.abi3.so", "b"): 40}), Counter({("libc.so.6", "malloc"): 8})
    )
    other = Profile(
        Counter({("libpython3.11.so.1.0", "a"): 30, ("_rust.abi3.so", "b"): 20}), Counter({("libc.so.6", "calloc"): 6})
    )
    counts = count_profiles([one, other], 2)
    assert counts.totals() == {
        "instructions": 20,
        "instructions in OpenSSL": 10,
        "instructions in interpreter": 10,
        "allocations": 3,
    }
    assert counts.functions == {"libpython3.11.so.1.0:a": 15, "_rust.abi3.so:b": 10}
    assert count_system_calls([Counter(recvfrom=6, read=1), Counter(recvfrom=6)], 2).system_calls == {"recvfrom": 3}


@pytest.mark.parametrize(
    ("grown", "named"),
    [
        (
            replace(scaled(BASE, "interpreter", 1.06), functions={**BASE.functions, "python3.11:dict_get": 102.0}),
            "instructions in interpreter: 212 instead of 200 (+6.0%); grown most: python3.11:dict_get +12",
        ),
        (
            replace(scaled(BASE, "OpenSSL", 1.06), functions={**BASE.functions, "_rust.abi3.so:sha256": 60.0}),
            "instructions in OpenSSL: 1,060 instead of 1,000 (+6.0%); grown most: _rust.abi3.so:sha256 +60",
        ),
        (scaled(BASE, "libc", 1.06), "instructions in libc: 106 instead of 100 (+6.0%); grown most: no single function"),
        (replace(BASE, allocations=53.0), "allocations: 53 instead of 50 (+6.0%); grown most: no single function"),
        (
            replace(BASE, system_calls={**BASE.system_calls, "getpid": 1.0}),
            "system calls: 7 instead of 6 (+16.7%); grown most: getpid +1",
        ),
    ],
    ids=["interpreter", "OpenSSL", "libc", "allocations", "system calls"],
)
def test_six_percent_more_fails_and_names_what_grew(grown: Counts, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(find_growth(BASE, grown)) == [named]
    assert report_growth({"echo": BASE}, {"echo": grown}) == 1
    assert capsys.readouterr().err == f"bench.guard: echo: {named}\n"


def test_six_percent_in_all_fails_for_the_sum_too() -> None:
    grown = scaled(scaled(scaled(BASE, "OpenSSL", 1.06), "interpreter", 1.06), "libc", 1.06)
    assert [line.partition(":")[0] for line in find_growth(BASE, grown)] == [
        "instructions",
        "instructions in OpenSSL",
        "instructions in interpreter",
        "instructions in libc",
    ]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.04])
def test_four_percent_more_is_accepted(factor: float) -> None:
    grown = scaled(replace(BASE, allocations=50.0 * factor, system_calls={"recvfrom": 6 * factor}), "interpreter", factor)
    assert report_growth({"echo": BASE}, {"echo": grown}) == 0


def test_only_what_is_recorded_is_compared() -> None:
    assert report_growth({"echo": Counts(system_calls=BASE.system_calls)}, {"echo": scaled(BASE, "libc", 9)}) == 0
    assert report_growth({"echo": Counts(system_calls={"recvfrom": 1.0})}, {"echo": BASE}) == 1


def test_the_counts_of_an_environment_are_recorded_beside_those_of_others(tmp_path: Path) -> None:
    here, there, calls = {"python": "3.11.2"}, {"python": "3.12.1"}, Counts(system_calls={"recvfrom": 1.0})
    recorded = Recorded().extended(here, {"echo": calls}).extended(there, {"echo": BASE}).extended(here, {"echo": BASE})
    write_record(tmp_path / "counts.json", recorded)
    assert read_record(tmp_path / "counts.json") == recorded
    assert len(recorded.environments) == 2
    assert recorded.find(here) == recorded.find(there) == {"echo": BASE}


def test_an_unknown_environment_is_compared_with_the_most_similar_one() -> None:
    recorded = Recorded().extended({"python": "3.11.2", "libc": "2.36"}, {}).extended({"python": "3.12.1", "libc": "2.39"}, {})
    assert recorded.find({"python": "3.11.2", "libc": "2.39"}) is None
    assert recorded.differences({"python": "3.11.2", "libc": "2.37"}) == "libc 2.37, recorded 2.36"


def test_a_commit_is_counted_in_a_directory_of_its_own(tmp_path: Path) -> None:
    program("git")
    with checked_out(str(tmp_path)) as checkout:
        assert checkout == tmp_path
    with pytest.raises(BenchError, match="git archive: "), checked_out("no-such-commit"):
        pass
    if (CHECKOUT / ".git").exists():
        with checked_out("HEAD") as checkout:
            assert (checkout / "tunnel" / "__main__.py").exists()
            assert checkout != CHECKOUT


def test_the_table_shows_the_change() -> None:
    rows = format_counts({"echo": BASE}, {"echo": scaled(BASE, "libc", 1.5)}).splitlines()
    assert "| echo | instructions | 1,301 | 1,351 | +3.84% |" in rows
    assert "|  | instructions in libc | 100 | 150 | +50.00% |" in rows


def test_this_checkout_costs_what_is_recorded() -> None:
    for name in ("valgrind", "strace"):
        program(name)
    assert main([]) == 0, "see the output; if the growth is intended: python -m bench.guard --record"
