"""Waiting for the first identity: how long, for which answers, and what a person is told meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tunnel.config.dev_model import Entry
from tunnel.config.model import WorkloadApi
from tunnel.devapi.api import SVIDS, DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.errors import IdentityError, IdentityFault
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection
from tunnel.svid.fetch import FirstIdentity, wait_identity

ONE, TWO = (Entry(parse_spiffe_id(f"spiffe://a.test/{name}"), hint) for name, hint in (("one", ""), ("two", "web")))


@pytest.fixture
def endpoint(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "agent.sock"))


@pytest.fixture
def api(endpoint: WorkloadEndpoint) -> Iterator[DevWorkloadApi]:
    with DevWorkloadApi({endpoint: [ONE, TWO]}) as api:
        yield api


def ask(source: WorkloadApi) -> tuple[FirstIdentity, list[str]]:
    said: list[str] = []
    return trio.run(wait_identity, source, said.append), said


def test_of_several_the_first_is_taken_and_a_warning_given(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    found, said = ask(WorkloadApi(endpoint, 0.0))
    assert found.credentials.svid.spiffe_id == ONE.spiffe_id
    assert [warning[:31] for warning in found.warnings] == ["warning: 2 SVIDs offered and no"]
    assert said == []


def test_one_may_be_chosen(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    found, _ = ask(WorkloadApi(endpoint, 0.0, Selection(hint="web")))
    assert found.credentials.svid.spiffe_id == TWO.spiffe_id
    assert (len(found.context.offered), found.warnings) == (2, ())


def test_a_person_is_told_once_what_is_waited_for(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.identity.wait_notice.NOTICE_DELAY", 0.2)
    api.withdraw(endpoint)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        api.restore(endpoint)

    assert trio.run(wait_identity, WorkloadApi(endpoint, 60.0), say).credentials.svid.spiffe_id == ONE.spiffe_id
    assert len(said) == 1
    assert said[0].startswith(f"waiting for an identity from {endpoint}")


def test_an_identity_that_is_not_offered_is_awaited_in_vain(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with pytest.raises(
        IdentityError, match=r"does not offer --spiffe-hint db, only spiffe://a\.test/one, spiffe://a\.test/two"
    ) as late:
        ask(WorkloadApi(endpoint, 0.3, Selection(hint="db")))
    assert late.value.reason is IdentityFault.TIMEOUT


def test_an_answer_that_nothing_will_change_ends_the_wait(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, SVIDS, Refusal("INVALID_ARGUMENT", "security header missing"))
    with pytest.raises(IdentityError, match="INVALID_ARGUMENT: security header missing") as refused:
        ask(WorkloadApi(endpoint, 0.0))
    assert refused.value.reason is IdentityFault.REFUSED
