"""The Workload API client against a real server on a real socket, with every behaviour of an agent."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support import spire_captures
from tests.support.cert_factory import END, NOW, START, authority, leaf
from tests.support.scripted_agent import BAD, NEW, OLD, SILENCE, Scripted, Wall
from tests.support.stream_watch import LIMIT, FastBackoff, watching
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import SVIDS, DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.errors import IdentityFault
from tunnel.identity.events import Denied, Disconnected, FatalError, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.identity.update import accept_update
from tunnel.identity.workload import WorkloadStream
from tunnel.lazy_dataclass import replace
from tunnel.spiffe.endpoint import WorkloadEndpoint, parse_endpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, encode_x509_svid_response, parse_x509_svid_response
from tunnel.spiffe.selection import Selection

WORKLOAD = Entry(parse_spiffe_id("spiffe://a.test/x"))
OTHER = Entry(parse_spiffe_id("spiffe://a.test/y"))

STATUSES = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
FATAL = ("INVALID_ARGUMENT", "UNIMPLEMENTED")


@pytest.fixture
def endpoint(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "api.sock"))


@pytest.fixture
def api(endpoint: WorkloadEndpoint) -> Iterator[DevWorkloadApi]:
    with DevWorkloadApi({endpoint: [WORKLOAD]}) as api:
        yield api


def paths(event: Updated) -> list[str]:
    return [svid.spiffe_id.path for svid in event.context.svids]


def good_message(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> bytes:
    """Return the current answer of the server."""
    message = api._state.svid_message(endpoint)
    assert message is not None
    return message


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.01)


def test_the_first_message_is_the_first_event(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    """The server requires the security header exactly once, so this covers the header too."""
    with watching(endpoint) as watch:
        assert paths(watch.updated()) == ["/x"]
        assert watch.backoff.resets == 1


def test_each_new_message_is_an_update(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        api.rotate_svids()
        first = watch.updated().context.svid
        api.register(endpoint, OTHER)
        second = watch.updated(is_new=False)  # an identity that is not ours
        assert [offer.spiffe_id for offer in second.context.offered] == ["spiffe://a.test/x", "spiffe://a.test/y"]
        assert second.context.svid.chain == first.chain
        api.unregister(endpoint, WORKLOAD)
        assert paths(watch.updated()) == ["/y"]


def test_the_svid_is_selected_before_verification(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.register(endpoint, OTHER)
    response = parse_x509_svid_response(good_message(api, endpoint))
    bad = replace(response.svids[0], x509_svid=b"noise")
    api.publish(endpoint, SVIDS, encode_x509_svid_response(replace(response, svids=(bad, response.svids[1]))))
    with watching(endpoint, selection=Selection(OTHER.spiffe_id)) as watch:
        assert paths(watch.updated()) == ["/y"]
        api.rotate_svids()
        assert paths(watch.updated()) == ["/y"]
    api.publish(endpoint, SVIDS, encode_x509_svid_response(replace(response, svids=(bad, response.svids[1]))))
    with watching(endpoint, wants_all=True) as watch:
        event = watch.updated()
        assert (paths(event), len(event.context.skipped)) == (["/y"], 1)


def test_an_equal_message_on_a_new_stream_is_not_new(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        api.end_streams(endpoint)
        assert type(watch.next()) is Disconnected
        watch.updated(is_new=False)
        api.rotate_svids()
        watch.updated(is_new=True)


@pytest.mark.parametrize(
    "name", ["a b", "%41", "%2F", "a?b#c", "\u00e9\u20ac", "a;b=c@d:e&f", "[x]{y}|^`~", "a+b'c(d)!*", "x\\y", "a//b", "n" * 20]
)
def test_a_socket_of_any_name_is_reached(name: str, tmp_path: Path) -> None:
    """Characters with a meaning in URIs are encoded; the server listens through a symbolic link with a plain name."""
    place = tmp_path / "d"
    place.mkdir()
    plain = WorkloadEndpoint(path=str(place / "api.sock"))
    odd = tmp_path / name
    odd.parent.mkdir(exist_ok=True)
    odd.symlink_to(place)
    address = parse_endpoint("unix:///" + quote(f"{tmp_path}/{name}/api.sock"))
    with DevWorkloadApi({plain: [WORKLOAD]}), watching(address) as watch:
        assert paths(watch.updated()) == ["/x"]


def test_an_address_of_four_slashes_is_reached(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(parse_endpoint(f"unix:///{endpoint.path}")) as watch:
        assert paths(watch.updated()) == ["/x"]


def test_a_tcp_endpoint_is_reached() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = WorkloadEndpoint(host="127.0.0.1", port=probe.getsockname()[1])
    with DevWorkloadApi({place: [WORKLOAD]}), watching(place) as watch:
        assert paths(watch.until(Updated)) == ["/x"]


# -- statuses


@pytest.mark.parametrize("code", STATUSES)
def test_each_status_at_the_start(code: str, api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, SVIDS, Refusal(code, "so it is"))
    with watching(endpoint) as watch:
        event = watch.next()
        if code in FATAL:
            assert isinstance(event, FatalError)
            assert event.error.reason is IdentityFault.REFUSED
            assert f"{code}: so it is" in str(event.error)
            wait_until(lambda: not watch.stream._thread.is_alive())
            assert watch.is_silent()
            return
        assert type(event) is (Denied if code == "PERMISSION_DENIED" else Disconnected)
        assert (event.code, event.details) == (code, "so it is")
        assert watch.backoff.asked[0] == ((1.0 if code == "PERMISSION_DENIED" else 0.5), 5.0)
        api.publish(endpoint, SVIDS, good_message(api, endpoint))
        assert paths(watch.until(Updated)) == ["/x"]


@pytest.mark.parametrize("code", STATUSES)
def test_each_status_after_an_accepted_update(code: str, api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        api.publish(endpoint, SVIDS, Refusal(code, "so it is"))
        event = watch.next()
        assert type(event) is (Denied if code == "PERMISSION_DENIED" else Disconnected), "nothing is without hope any more"
        assert (event.code, event.details) == (code, "so it is")
        floor = {"PERMISSION_DENIED": 1.0, "INVALID_ARGUMENT": 30.0, "UNIMPLEMENTED": 30.0}.get(code, 0.5)
        assert watch.backoff.asked[0] == (floor, 30.0)
        api.publish(endpoint, SVIDS, good_message(api, endpoint))
        assert watch.until(Updated).is_new is False


@pytest.mark.parametrize("scene", ["no-identity", "no-header", "header-twice", "header-wrong"])
def test_the_captured_statuses_have_their_meaning(scene: str, api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    status = spire_captures.call(f"{scene}/svid")["status"]
    api.publish(endpoint, SVIDS, Refusal(status["code"], status["details"]))
    with watching(endpoint) as watch:
        event = watch.next()
        if scene == "no-identity":
            assert event == Denied("PERMISSION_DENIED", "no identity issued", 0.01)
        else:
            assert isinstance(event, FatalError)
            assert "security header missing from request" in str(event.error)


def test_a_withdrawn_identity_is_denied_on_an_open_stream_and_a_restored_one_accepted(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint
) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        api.withdraw(endpoint)
        assert watch.next() == Denied("PERMISSION_DENIED", "no identity issued", 0.01)
        api.restore(endpoint)
        watch.until(Updated)


def test_the_captured_end_of_the_rotation_is_a_denial(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    """Two captured messages and the captured status, with the clock of the capture."""
    call = spire_captures.call("rotation/svid")
    first, second = (spire_captures.message(f"rotation/svid/{number}") for number in (15, 16))
    api.publish(endpoint, SVIDS, first)
    with watching(endpoint, wall=lambda: call["started"] + call["messages_at"][16]) as watch:
        one = watch.updated()
        api.publish(endpoint, SVIDS, second)
        two = watch.updated()
        assert one.context.svids[0].chain != two.context.svids[0].chain
        api.publish(endpoint, SVIDS, Refusal(call["status"]["code"], call["status"]["details"]))
        assert isinstance(watch.next(), Denied)


# -- ends and outages


def test_a_clean_end_is_followed_by_a_new_stream(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        for _ in range(3):
            api.end_streams(endpoint)
            assert watch.next() == Disconnected("OK", "", 0.01)
            watch.updated(is_new=False)
        assert api.stream_count(endpoint) == 1


def test_only_the_end_of_a_stable_stream_is_followed_by_an_attempt_without_delay(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint
) -> None:
    now = [0.0]
    with watching(endpoint, clock=lambda: now[0]) as watch:
        watch.updated()
        api.end_streams(endpoint)
        assert isinstance(watch.next(), Disconnected)
        watch.updated(is_new=False)
        now[0] += 1.0  # the second stream has begun already
        api.end_streams(endpoint)
        watch.until(Updated)
        assert watch.backoff.asked == [(0.5, 30.0), (0.0, 30.0)]


def test_a_stream_without_an_accepted_update_is_followed_by_an_attempt_with_delay(
    api: DevWorkloadApi, endpoint: WorkloadEndpoint
) -> None:
    api.publish(endpoint, SVIDS, b"noise")
    with watching(endpoint, backoff=(backoff := FastBackoff(3600.0))) as watch:
        assert isinstance(watch.next(), Rejected)
        api.end_streams(endpoint)
        assert isinstance(watch.next(), Disconnected)
        assert backoff.asked == [(1.0, 5.0), (0.5, 5.0)]
        assert backoff.resets == 0


def test_a_missing_socket_is_waited_for(endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        for _ in range(3):
            event = watch.next()
            assert type(event) is Disconnected
            assert event.code == "UNAVAILABLE"
        assert watch.backoff.asked[:3] == [(0.5, 5.0)] * 3
        with DevWorkloadApi({endpoint: [WORKLOAD]}):
            assert paths(watch.until(Updated)) == ["/x"]


def test_a_socket_without_a_listener_is_waited_for(endpoint: WorkloadEndpoint) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(endpoint.path)
    with watching(endpoint) as watch:
        assert watch.until(Disconnected).code == "UNAVAILABLE"
        with DevWorkloadApi({endpoint: [WORKLOAD]}):
            assert paths(watch.until(Updated)) == ["/x"]


def test_an_agent_that_restarts_is_found_again(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        api.stop()
        lost = watch.next()
        assert type(lost) is Disconnected
        assert lost.code in ("UNAVAILABLE", "CANCELLED", "UNKNOWN")
        api.start()
        assert watch.until(Updated).is_new is False


def test_another_agent_on_the_same_socket_is_found(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
        api.stop()
        with DevWorkloadApi({endpoint: [OTHER]}):
            assert paths(watch.until(Updated)) == ["/y"]


def test_a_server_without_grpc_is_a_disconnect(endpoint: WorkloadEndpoint) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(endpoint.path)
        listener.listen()
        listener.settimeout(LIMIT)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        speaker = threading.Thread(target=answer)
        speaker.start()
        with watching(endpoint) as watch:
            assert watch.until(Disconnected).code == "UNAVAILABLE"
            speaker.join()
            listener.close()


# -- messages that are not taken


def spoilt(message: bytes) -> dict[str, tuple[bytes, IdentityFault]]:
    response = parse_x509_svid_response(message)
    (svid,) = response.svids
    no_key = encode_x509_svid_response(replace(response, svids=(replace(svid, x509_svid_key=b""),)))
    return {
        "noise": (b"\xff\xff\xff", IdentityFault.BAD_MESSAGE),
        "cut": (message[:-1], IdentityFault.BAD_MESSAGE),
        "empty": (b"", IdentityFault.NO_SVID),
        "no key": (no_key, IdentityFault.INCOMPLETE),
    }


@pytest.mark.parametrize("kind", ["noise", "cut", "empty", "no key"])
def test_a_rejected_message_is_reported_once_and_keeps_the_previous_update(
    kind: str, api: DevWorkloadApi, endpoint: WorkloadEndpoint
) -> None:
    good = good_message(api, endpoint)
    bad, reason = spoilt(good)[kind]
    with watching(endpoint) as watch:
        watch.updated()
        api.publish(endpoint, SVIDS, bad)
        rejected = watch.next()
        assert isinstance(rejected, Rejected)
        assert rejected.error.reason is reason
        wait_until(lambda: len(watch.backoff.asked) > 4)  # so many streams have brought it again
        api.publish(endpoint, SVIDS, good)
        watch.updated(is_new=False)
        assert set(watch.backoff.asked) == {(1.0, 30.0)}


def test_an_invalid_first_message_is_not_fatal(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    good = good_message(api, endpoint)
    api.publish(endpoint, SVIDS, b"noise")
    with watching(endpoint) as watch:
        assert isinstance(watch.next(), Rejected)
        api.publish(endpoint, SVIDS, good)
        watch.updated()


def test_a_message_is_verified_by_the_wall_clock(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint, wall=lambda: 4e9) as watch:
        rejected = watch.next()
        assert isinstance(rejected, Rejected)
        assert rejected.error.reason is IdentityFault.UNVERIFIED


def test_a_message_over_the_default_limit_of_grpc_is_accepted(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    """A large federation exceeds 4 MiB."""
    response = parse_x509_svid_response(good_message(api, endpoint))
    (svid,) = response.svids
    federated = {f"{number}.test": svid.bundle * 8 for number in range(1600)}
    message = encode_x509_svid_response(replace(response, federated_bundles=federated))
    assert len(message) > 5 * 1024 * 1024
    api.publish(endpoint, SVIDS, message)
    with watching(endpoint) as watch:
        assert len(watch.updated().context.bundles.bundles) == 1601


# -- what time changes


def test_an_update_that_is_not_yet_valid_is_accepted_when_it_is(endpoint: WorkloadEndpoint) -> None:
    """Our clock is 40 seconds behind. The agent sends nothing more, and no new stream is opened meanwhile."""
    wall = Wall(START - timedelta(seconds=40))
    with (
        Scripted(endpoint, OLD) as agent,
        watching(endpoint, wall=wall, check_interval=0.01, backoff=FastBackoff(3600.0)) as watch,
    ):
        rejected = watch.next()
        assert isinstance(rejected, Rejected)
        assert "not-yet-valid" in str(rejected.error)
        wall.now = START
        assert paths(watch.updated()) == ["/w"]
        assert agent.opened == 1


def test_an_update_that_is_not_yet_valid_is_accepted_even_if_the_agent_has_stopped(endpoint: WorkloadEndpoint) -> None:
    wall = Wall(START - timedelta(seconds=40))
    agent = Scripted(endpoint, OLD)
    with agent, watching(endpoint, wall=wall, check_interval=0.01, backoff=FastBackoff(3600.0)) as watch:
        assert isinstance(watch.next(), Rejected)
        agent.stop()
        assert isinstance(watch.next(), Disconnected)
        wall.now = START
        assert paths(watch.updated()) == ["/w"]


def test_a_rejected_update_is_followed_by_a_new_stream(endpoint: WorkloadEndpoint) -> None:
    """The agent sends nothing more on a stream that it thinks is served."""
    with Scripted(endpoint, BAD, BAD, OLD) as agent, watching(endpoint, wall=Wall(), check_interval=0.01) as watch:
        assert isinstance(watch.next(), Rejected)
        watch.updated()
        assert agent.opened == 3
        assert watch.backoff.asked == [(1.0, 5.0)] * 4


def test_an_overdue_rotation_opens_a_new_stream(endpoint: WorkloadEndpoint) -> None:
    wall = Wall()
    with Scripted(endpoint, OLD, OLD, NEW) as agent, watching(endpoint, wall=wall, check_interval=0.01) as watch:
        first = watch.updated().context.svid
        wall.now = START + 0.75 * (END - START)
        overdue = watch.next()
        assert isinstance(overdue, Overdue)
        assert overdue.svid == first
        watch.updated(is_new=False)
        assert agent.opened == 2
        wall.now = END - timedelta(minutes=1)
        assert watch.updated().context.svid.not_after == END + timedelta(hours=3)
        assert agent.opened == 3


def test_a_clock_set_forward_and_back_delays_no_attempt(endpoint: WorkloadEndpoint) -> None:
    wall = Wall()
    with Scripted(endpoint, OLD) as agent, watching(endpoint, wall=wall, check_interval=0.01) as watch:
        watch.updated()
        wall.now = NOW + timedelta(days=365)
        assert isinstance(watch.next(), Overdue)
        assert isinstance(watch.next(), Rejected)
        wall.now = START + 0.8 * (END - START)
        watch.until(Updated)
        opened = agent.opened
        while agent.opened == opened:
            assert wall.now < END, "no new stream before the SVID has expired"
            wall.now += timedelta(seconds=5)
            time.sleep(0.02)  # so that the watcher looks


def test_an_expired_svid_opens_new_streams_and_is_reported_once(endpoint: WorkloadEndpoint) -> None:
    wall = Wall()
    with Scripted(endpoint, OLD, OLD, OLD, NEW) as agent, watching(endpoint, wall=wall, check_interval=0.01) as watch:
        watch.updated()
        wall.now = END - timedelta(seconds=1)
        assert isinstance(watch.next(), Overdue)
        watch.updated(is_new=False)
        wall.now = END + timedelta(seconds=1)
        assert isinstance(watch.next(), Rejected)
        assert watch.updated().context.svid.not_after == END + timedelta(hours=3)
        assert agent.opened == 4


def test_an_agent_that_does_not_answer_gets_a_new_stream(endpoint: WorkloadEndpoint) -> None:
    now = [0.0]
    with (
        Scripted(endpoint, SILENCE, OLD) as agent,
        watching(endpoint, wall=Wall(), clock=lambda: now[0], check_interval=0.01) as watch,
    ):
        wait_until(lambda: agent.opened == 1)
        now[0] += 15.0
        lost = watch.next()
        assert isinstance(lost, Disconnected)
        assert (lost.code, lost.details) == ("DEADLINE_EXCEEDED", "no answer within 15s")
        watch.updated()
        now[0] += 3600.0  # a stream that has answered may be silent
        assert agent.opened == 2


def test_an_authority_that_is_not_yet_valid_is_waited_for_by_new_streams(endpoint: WorkloadEndpoint) -> None:
    early = authority(start=NOW + timedelta(minutes=1), end=END)
    worker = leaf(issuer=early)
    svid = SvidEntry("spiffe://a.test/w", worker.der, worker.key_der, early.der)
    wall = Wall()
    with Scripted(endpoint, encode_x509_svid_response(X509SvidResponse((svid,)))), watching(endpoint, wall=wall) as watch:
        rejected = watch.next()
        assert isinstance(rejected, Rejected)
        assert rejected.error.begins is None
        wall.now = NOW + timedelta(minutes=1)
        watch.updated()


def test_renewal_attempts_get_closer_before_expiry_and_continue_after_it() -> None:
    (svid,) = accept_update(parse_x509_svid_response(OLD), NOW).svids
    begin, end = START.timestamp(), END.timestamp()
    assert svid.next_renewal(begin) == svid.overdue_at == begin + 0.75 * (end - begin)
    assert svid.next_renewal(end - 400.0) == end - 200.0
    assert svid.next_renewal(end - 1.5) == end - 0.5
    assert svid.next_renewal(end - 0.5) == end
    assert svid.next_renewal(end) == end + 30.0


# -- stopping


def test_stop_ends_the_thread_while_a_stream_is_open(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint) as watch:
        watch.updated()
    assert not watch.stream._thread.is_alive()
    assert watch.is_silent(), "the end that was asked for is no event"
    wait_until(lambda: api.stream_count(endpoint) == 0)


def test_stop_ends_the_thread_while_it_waits_for_the_next_attempt(endpoint: WorkloadEndpoint) -> None:
    with watching(endpoint, backoff=FastBackoff(3600.0)) as watch:
        assert watch.until(Disconnected).delay == 3600.0
    assert not watch.stream._thread.is_alive()


def test_stop_right_after_the_start_ends_the_thread(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    for _ in range(10):
        with watching(endpoint) as watch:
            pass
        assert not watch.stream._thread.is_alive()


def test_stop_ends_the_thread_while_the_agent_does_not_answer(endpoint: WorkloadEndpoint) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(endpoint.path)
        listener.listen()
        listener.settimeout(LIMIT)
        with watching(endpoint) as watch:
            connection, _ = listener.accept()
            with connection:
                assert watch.is_silent()
                watch.stream.stop()
        assert not watch.stream._thread.is_alive()


def test_stop_after_a_fatal_error_is_no_error(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    api.publish(endpoint, SVIDS, Refusal("UNIMPLEMENTED", "no"))
    with watching(endpoint) as watch:
        watch.until(FatalError)
    watch.stream.stop()


def test_a_bug_in_the_client_is_a_fatal_event(monkeypatch: pytest.MonkeyPatch) -> None:
    told: queue.Queue[WorkloadEvent] = queue.Queue()
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)  # what Python prints of it is not the point
    stream = WorkloadStream(WorkloadEndpoint(path="/nowhere/agent.sock"))
    stream.subscribe(told.put)
    monkeypatch.setattr(stream, "_run_stream", lambda: 1 / 0)
    stream.start()
    event = told.get(timeout=60)
    assert isinstance(event, FatalError)
    assert event.error.reason is IdentityFault.CRASHED
    stream.stop()
