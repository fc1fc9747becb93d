"""The wait for the first identity: its limit, the answers that end it, and the notice to a person."""

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


def wait(source: WorkloadApi) -> tuple[FirstIdentity, list[str]]:
    notices: list[str] = []
    return trio.run(wait_identity, source, notices.append), notices


def test_of_several_the_first_is_taken_and_a_warning_given(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    found, notices = wait(WorkloadApi(endpoint, 0.0))
    assert found.credentials.svid.spiffe_id == ONE.spiffe_id
    assert [warning[:31] for warning in found.warnings] == ["warning: 2 SVIDs offered and no"]
    assert notices == []


def test_an_identity_can_be_selected(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    found, _ = wait(WorkloadApi(endpoint, 0.0, Selection(hint="web")))
    assert found.credentials.svid.spiffe_id == TWO.spiffe_id
    assert (len(found.context.offered), found.warnings) == (2, ())


def test_a_person_is_notified_once_of_a_long_wait(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.identity.wait_notice.NOTICE_DELAY", 0.2)
    api.withdraw(endpoint)
    notices: list[str] = []

    def say(line: str) -> None:
        notices.append(line)
        api.restore(endpoint)

    assert trio.run(wait_identity, WorkloadApi(endpoint, 60.0), say).credentials.svid.spiffe_id == ONE.spiffe_id
    assert len(notices) == 1
    assert notices[0].startswith(f"waiting for an identity from {endpoint}")


def test_an_identity_that_is_not_offered_is_a_timeout(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with pytest.raises(
        IdentityError, match=r"does not offer --spiffe-hint db, only spiffe://a\.test/one, spiffe://a\.test/two"
    ) as late:
        wait(WorkloadApi(endpoint, 0.3, Selection(hint="db")))
    assert late.value.reason is IdentityFault.TIMEOUT


def test_a_fatal_answer_ends_the_wait(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, SVIDS, Refusal("INVALID_ARGUMENT", "security header missing"))
    with pytest.raises(IdentityError, match="INVALID_ARGUMENT: security header missing") as refused:
        wait(WorkloadApi(endpoint, 0.0))
    assert refused.value.reason is IdentityFault.REFUSED
