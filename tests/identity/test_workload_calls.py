"""Single Workload API calls against a real server on a real socket, with every behaviour of an agent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.jwt_factory import NOW, jwk, jwks, token
from tunnel.backoff import Backoff
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import BUNDLES, JWT_BUNDLES, JWT_SVIDS, VALIDATE, DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.errors import IdentityError, IdentityFault, TokenError, TokenFault
from tunnel.identity.tokens import accept_jwt_bundles, accept_token
from tunnel.identity.workload_calls import WorkloadCalls
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import BundlesResponse, JwtSvidEntry, encode_jwt_svid_response, encode_validate_response
from tunnel.spiffe.messages import ValidateResponse as Validated
from tunnel.spiffe.selection import Selection

LIMIT = 60.0  # of every wait: generous, and never reached when things work
X, Z = Entry(parse_spiffe_id("spiffe://a.test/x")), Entry(parse_spiffe_id("spiffe://a.test/z"), "inner")
FIRST = Selection()
WHEN = datetime.fromtimestamp(NOW, UTC)


class FastBackoff(Backoff):
    """Waits for a few milliseconds and calls `after` each time."""

    def __init__(self, after: Callable[[], None] = lambda: None) -> None:
        super().__init__(lambda: 0.0)
        self._after = after

    def next(self, *, floor: float, cap: float) -> float:
        self._after()
        return 0.01


@pytest.fixture
def endpoint(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "api.sock"))


@pytest.fixture
def api(endpoint: WorkloadEndpoint) -> Iterator[DevWorkloadApi]:
    with DevWorkloadApi({endpoint: [X, Z]}) as api:
        yield api


@pytest.fixture
def calls(endpoint: WorkloadEndpoint) -> WorkloadCalls:
    return WorkloadCalls(endpoint, limit=LIMIT, backoff=FastBackoff())


def test_a_token_is_fetched_for_the_selected_identity(api: DevWorkloadApi, calls: WorkloadCalls) -> None:
    answer = calls.fetch_token(["db", "web"], FIRST)
    svid = answer.svid
    assert (str(svid.spiffe_id), svid.audience, answer.offered) == ("spiffe://a.test/x", ("db", "web"), 2)
    assert svid.token.text not in repr(answer)
    assert calls.fetch_token(["db"], Selection(hint="inner")).svid.spiffe_id == Z.spiffe_id
    answer = calls.fetch_token(["db"], Selection(Z.spiffe_id))
    assert (answer.svid.spiffe_id, answer.offered) == (Z.spiffe_id, 1)


def test_a_token_is_validated_by_the_agent(api: DevWorkloadApi, calls: WorkloadCalls) -> None:
    svid = calls.fetch_token(["db"], FIRST).svid
    answer = calls.validate_token("db", svid.token.text)
    assert (answer.spiffe_id, answer.claims["aud"]) == ("spiffe://a.test/x", ["db"])
    with pytest.raises(TokenError) as refused:
        calls.validate_token("web", svid.token.text)
    assert refused.value.reason is TokenFault.REFUSED
    assert "web" in str(refused.value)
    assert svid.token.text not in str(refused.value)


def test_bundles_of_both_types_are_fetched_once(api: DevWorkloadApi, calls: WorkloadCalls, endpoint: WorkloadEndpoint) -> None:
    svid = calls.fetch_token(["db"], FIRST).svid
    assert list(calls.fetch_jwt_bundles().bundles[TrustDomain("a.test")]) == [svid.token.header["kid"]]
    assert len(calls.fetch_x509_bundles().bundles[TrustDomain("a.test")].authorities) == 1
    deadline = time.monotonic() + LIMIT
    while api.stream_count(endpoint):
        assert time.monotonic() < deadline, "the streams stay open"
        time.sleep(0.01)


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"])
@pytest.mark.parametrize("rpc", [JWT_SVIDS, JWT_BUNDLES])
def test_a_temporary_failure_is_retried(code: str, rpc: str, api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, rpc, Refusal(code, "not now"))
    calls = WorkloadCalls(endpoint, limit=LIMIT, backoff=FastBackoff(api.rotate_svids))  # which ends what was published
    if rpc == JWT_SVIDS:
        assert calls.fetch_token(["db"], FIRST)
    else:
        assert calls.fetch_jwt_bundles()


@pytest.mark.parametrize("raw", [b"\xff", b"", encode_jwt_svid_response([JwtSvidEntry("spiffe://a.test/x", token())])])
def test_a_rejected_answer_is_retried(raw: bytes, api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, JWT_SVIDS, raw)
    calls = WorkloadCalls(endpoint, limit=LIMIT, backoff=FastBackoff(api.rotate_svids))
    assert calls.fetch_token(["db"], FIRST).svid.spiffe_id == X.spiffe_id


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNIMPLEMENTED"])
def test_a_permanent_failure_is_raised_at_once(
    code: str, api: DevWorkloadApi, calls: WorkloadCalls, endpoint: WorkloadEndpoint
) -> None:
    api.publish(endpoint, JWT_SVIDS, Refusal(code, "never"))
    api.publish(endpoint, JWT_BUNDLES, Refusal(code, "never"))
    for ask in (lambda: calls.fetch_token(["db"], FIRST), calls.fetch_jwt_bundles):
        with pytest.raises(IdentityError, match=f"{code}: never") as refused:
            ask()
        assert refused.value.reason is IdentityFault.REFUSED


def test_the_error_at_the_limit_names_the_problem(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, JWT_SVIDS, Refusal("PERMISSION_DENIED", "no identity issued"))
    api.publish(endpoint, BUNDLES, Refusal("UNAVAILABLE", "not now"))
    calls = WorkloadCalls(endpoint, limit=0.2, backoff=FastBackoff())
    for ask, trouble in (
        (
            lambda: calls.fetch_token(["db"], FIRST),
            r"to this process \(PERMISSION_DENIED: no identity issued\)",
        ),
        (calls.fetch_x509_bundles, r"unavailable \(UNAVAILABLE: not now\)"),
    ):
        with pytest.raises(IdentityError, match=trouble) as late:
            ask()
        assert late.value.reason is IdentityFault.TIMEOUT


def test_a_missing_socket_and_a_hint_that_is_not_offered_are_problems_too(
    api: DevWorkloadApi, tmp_path: Path, endpoint: WorkloadEndpoint
) -> None:
    with pytest.raises(IdentityError, match=r"UNAVAILABLE.*[Nn]o such file"):
        WorkloadCalls(WorkloadEndpoint(path=str(tmp_path / "none")), limit=0.2, backoff=FastBackoff()).fetch_token(
            ["db"], FIRST
        )
    with pytest.raises(IdentityError, match=r"--spiffe-hint other, only spiffe://a.test/x, spiffe://a.test/z \(hint inner\)"):
        WorkloadCalls(endpoint, limit=0.2, backoff=FastBackoff()).fetch_token(["db"], Selection(hint="other"))


def test_a_call_without_an_answer_is_reported_and_can_be_stopped(endpoint: WorkloadEndpoint) -> None:
    told: list[str] = []
    heard = threading.Event()

    def say(text: str) -> None:
        told.append(text)
        heard.set()

    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(endpoint.path)
        mute.listen()
        calls = WorkloadCalls(endpoint, limit=0, on_wait=say)
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                calls.fetch_token(["db"], FIRST)
            except IdentityError as error:
                failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert heard.wait(LIMIT)
        calls.stop()
        thread.join(LIMIT)
    assert not thread.is_alive()
    assert [error.reason for error in failures if isinstance(error, IdentityError)] == [IdentityFault.STOPPED]
    assert told == [f"waiting for the Workload API at {endpoint} (FetchJWTSVID)"]


def test_an_answer_without_a_spiffe_id_is_an_error(
    api: DevWorkloadApi, calls: WorkloadCalls, endpoint: WorkloadEndpoint
) -> None:
    api.publish(endpoint, VALIDATE, encode_validate_response(Validated("", {"sub": "spiffe://a.test/x"})))
    with pytest.raises(IdentityError, match="the answer contains no SPIFFE ID"):
        calls.validate_token("db", token())


def entry(text: str = "", spiffe_id: str = "spiffe://a.test/w", hint: str = "") -> JwtSvidEntry:
    return JwtSvidEntry(spiffe_id, text or token(), hint)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], IdentityFault.NO_SVID),
        ([entry(hint="h" * 1025)], IdentityFault.OVER_LIMIT),
        ([JwtSvidEntry("", token())], IdentityFault.INCOMPLETE),
        ([JwtSvidEntry("spiffe://a.test/w", "")], IdentityFault.INCOMPLETE),
        ([entry("x.y.z")], IdentityFault.UNVERIFIED),
        ([entry(token(aud="web"))], IdentityFault.UNVERIFIED),
        ([entry(token(exp=NOW))], IdentityFault.UNVERIFIED),
        ([entry(token(sub="spiffe://a.test/v"))], IdentityFault.WRONG_ID),
        ([entry(token(exp=NOW)), entry(token(sub="spiffe://a.test/v"))], IdentityFault.UNVERIFIED),
    ],
)
def test_an_answer_without_a_valid_token_is_refused(entries: list[JwtSvidEntry], reason: IdentityFault) -> None:
    with pytest.raises(IdentityError) as refused:
        accept_token(entries, ["db"], WHEN)
    assert refused.value.reason is reason


V = "spiffe://a.test/v"


@pytest.mark.parametrize(
    "bad",
    [
        JwtSvidEntry(V, ""),
        entry("x.y.z", V),
        entry(token(exp=NOW), V),
        entry(token(), V),
        JwtSvidEntry("", token()),
        entry(spiffe_id=V, hint="h" * 1025),
    ],
    ids=["no token", "no JWS", "expired", "of another", "no ID", "a hint that is too long"],
)
def test_an_invalid_token_does_not_affect_a_valid_one(bad: JwtSvidEntry) -> None:
    good = entry(hint="mine")
    for entries in ([bad, good], [good, bad], [good, *[bad] * 200]):
        for selection in (FIRST, Selection(hint="mine"), Selection(parse_spiffe_id("spiffe://a.test/w"))):
            answer = accept_token(entries, ["db"], WHEN, selection)
            assert (str(answer.svid.spiffe_id), answer.offered) == ("spiffe://a.test/w", len(entries))
    assert len(accept_token([bad, good], ["db"], WHEN).skipped) == 1
    with pytest.raises(IdentityError):
        accept_token([bad, good], ["db"], WHEN, Selection(parse_spiffe_id(V)))


def test_the_first_of_several_with_one_hint_is_selected_and_each_by_its_id() -> None:
    entries = [entry(hint="h"), entry(token(sub=V), V, "h"), entry()]
    assert str(accept_token(entries, ["db"], WHEN, Selection(hint="h")).svid.spiffe_id) == "spiffe://a.test/w"
    assert str(accept_token(entries, ["db"], WHEN, Selection(parse_spiffe_id(V))).svid.spiffe_id) == V


def test_each_bundle_is_parsed_separately() -> None:
    read = accept_jwt_bundles(
        BundlesResponse(
            {
                "spiffe://a.test": jwks(),
                "b.test": jwks(jwk("k2")),
                "spiffe://b.test": jwks(),
                "c.test": b"not json",
                "d.test": b'{"keys": []}',
                "Not A Domain": jwks(),
            }
        )
    )
    assert {domain.name: list(keys) for domain, keys in read.bundles.items()} == {"a.test": ["k1"], "d.test": []}
    assert {domain.name for domain in read.disabled} == {"b.test", "c.test"}
    assert len(accept_jwt_bundles(BundlesResponse({f"{n}.test": b'{"keys": []}' for n in range(2500)})).bundles) == 2500
