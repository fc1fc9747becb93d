"""Revocation lists in files next to a Workload API: read at the start and on reload, and added to those of each update."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.credential_files import RecordingSink
from tests.support.revocation_lists import encode_list
from tests.support.workload_updates import FOREIGN, ROOT, bundle, context
from tunnel.config.model import Revocation, WorkloadApi
from tunnel.errors import IdentityError
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.identity.events import Denied, Updated, WorkloadEvent
from tunnel.pkix.crl import parse_revocation_list
from tunnel.pkix.revocation import RevocationLists
from tunnel.proxy.identity_source import reload_source
from tunnel.proxy.workload_api_source import WorkloadApiSource
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain
from tunnel.status.counters import WorkloadApiState

FIRST, SECOND, OF_AGENT = (encode_list(ROOT, number) for number in (1, 2, 3))
UPDATE = Updated(context(), is_new=True)
SAME = Updated(context(), is_new=False)
DENIED = Denied("PERMISSION_DENIED", "no identity issued", 1.0)


class Sink(RecordingSink):
    """A sink that also records what happens besides."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.states: list[WorkloadApiState] = []

    def confirm(self) -> None:
        self.events.append("confirmed")

    def withdraw(self) -> None:
        self.events.append("withdrawn")

    def show_workload_api(self, state: WorkloadApiState) -> None:
        self.states.append(state)


class Source:
    """A source with one file, and what it has published."""

    def __init__(self, directory: Path, blob: bytes = FIRST, *, is_required: bool = True) -> None:
        self.file, self.sink = directory / "lists.crl", Sink()
        self.file.write_bytes(blob)
        api = WorkloadApi(WorkloadEndpoint(path="/nowhere/agent.sock"))
        self.source = WorkloadApiSource(api, Revocation((str(self.file),), is_required), self.sink, self.sink.log)

    def reload(self, blob: bytes | None = None) -> None:
        if blob is not None:
            self.file.write_bytes(blob)
        trio.run(reload_source, self.source)

    def apply(self, *events: Updated | Denied) -> None:
        for event in events:
            trio.run(self.source._apply, event)

    def published(self) -> list[tuple[int, RevocationLists]]:
        return [(number, used.revocation) for number, used in self.sink.used if isinstance(used, SvidCredentials)]


def lists(*encoded: bytes, is_required: bool = True) -> RevocationLists:
    return RevocationLists(tuple(map(parse_revocation_list, encoded)), is_required, is_complete=True)


@pytest.mark.parametrize("is_required", [True, False])
def test_lists_in_files_are_added_to_those_of_an_update(tmp_path: Path, is_required: bool) -> None:
    made = Source(tmp_path, is_required=is_required)
    made.reload()
    made.apply(Updated(context(lists=lists(OF_AGENT).lists), is_new=True))
    assert made.published() == [(1, lists(FIRST, OF_AGENT, is_required=is_required))]


def test_a_reload_publishes_other_lists_with_the_same_identity(tmp_path: Path) -> None:
    made = Source(tmp_path)
    made.reload()
    made.apply(UPDATE)
    made.reload()
    made.reload(SECOND)
    assert made.published() == [(1, lists(FIRST)), (2, lists(SECOND))]
    made.apply(UPDATE)
    assert made.published()[-1] == (3, lists(SECOND))


def test_a_reload_before_the_first_update_publishes_nothing(tmp_path: Path) -> None:
    made = Source(tmp_path)
    made.reload()
    assert made.published() == []


def test_a_broken_file_keeps_the_previous_lists(tmp_path: Path) -> None:
    made = Source(tmp_path)
    made.reload()
    made.apply(UPDATE)
    with pytest.raises(IdentityError, match=r"lists\.crl"):
        made.reload(b"rubbish")
    made.apply(UPDATE)
    assert made.published() == [(1, lists(FIRST)), (2, lists(FIRST))]


def test_lists_that_cannot_be_used_keep_the_previous_ones(tmp_path: Path) -> None:
    made = Source(tmp_path)
    made.reload()
    made.apply(UPDATE)
    made.sink.refuses = True
    with pytest.raises(IdentityError, match="cannot be presented"):
        made.reload(SECOND)
    made.sink.refuses = False
    made.apply(UPDATE)
    assert made.published()[-1][1] == lists(FIRST)


def test_a_broken_file_at_the_start_ends_the_process(tmp_path: Path) -> None:
    made = Source(tmp_path, b"rubbish")
    trio.run(made.source.run)
    assert isinstance(made.sink.failure, IdentityError)
    assert "lists.crl" in str(made.sink.failure)


def test_a_reload_does_not_restore_a_withdrawn_identity(tmp_path: Path) -> None:
    made = Source(tmp_path)
    made.reload()
    made.apply(UPDATE, DENIED)
    made.reload(SECOND)
    assert made.published() == [(1, lists(FIRST))]
    made.apply(SAME)  # the identity is granted again
    assert made.published()[-1][1] == lists(SECOND)
    assert made.sink.events == ["withdrawn"]
    made.apply(SAME)
    assert made.sink.events == ["withdrawn", "confirmed"]


def test_a_reload_of_lists_waits_for_an_update_that_is_put_into_use(tmp_path: Path) -> None:
    """Else it would bring back the previous SVID."""
    made = Source(tmp_path)
    made.reload()
    made.apply(UPDATE)
    made.file.write_bytes(SECOND)
    is_used, use = trio.Event(), made.sink.use

    async def use_slowly(number: int, credentials: Credentials) -> None:
        await is_used.wait()
        await use(number, credentials)

    made.sink.use = use_slowly  # type: ignore[method-assign]
    newer = Updated(context(bundle("b.test", FOREIGN)), is_new=True)

    async def update_and_reload() -> None:
        old = await made.source.read()
        assert old is not None
        send, events = trio.open_memory_channel[WorkloadEvent](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.source._follow, events)
            send.send_nowait(newer)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(made.source.publish, old)
            await trio.testing.wait_all_tasks_blocked()
            is_used.set()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(update_and_reload)
    assert made.published() == [(1, lists(FIRST)), (2, lists(FIRST)), (3, lists(SECOND))]
    _number, used = made.sink.used[-1]
    assert isinstance(used, SvidCredentials)
    assert TrustDomain("b.test") in used.bundles.bundles


def test_without_files_a_granted_identity_is_confirmed() -> None:
    sink = Sink()
    source = WorkloadApiSource(WorkloadApi(WorkloadEndpoint(path="/nowhere/agent.sock")), Revocation(), sink, sink.log)
    trio.run(reload_source, source)
    for event in (UPDATE, DENIED, SAME):
        trio.run(source._apply, event)
    assert sink.events == ["withdrawn", "confirmed"]
    assert len(sink.used) == 1


def test_skipped_lists_are_counted(tmp_path: Path) -> None:
    made = Source(tmp_path)
    made.apply(Updated(context(skipped_lists=2), is_new=True), Updated(context(skipped_lists=1), is_new=True))
    assert made.sink.states[-1].skipped_lists == 3
