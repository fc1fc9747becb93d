"""The development Workload API behaves like an agent: statuses, texts, streams."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from tunnel.config.dev_model import Entry
from tunnel.devapi.api import BUNDLES, SVIDS, DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.errors import ConfigError
from tunnel.pkix.der import split_sequences
from tunnel.spiffe.endpoint import WorkloadEndpoint, parse_endpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import HEADER, method_path, parse_x509_bundles_response, parse_x509_svid_response

LIMIT = 60.0  # of every wait: generous, and never reached when things work
WORKLOAD = Entry(parse_spiffe_id("spiffe://a.test/x"))
Open = Callable[..., Any]


@pytest.fixture
def endpoint(tmp_path: Path) -> WorkloadEndpoint:
    return WorkloadEndpoint(path=str(tmp_path / "api.sock"))


@pytest.fixture
def api(endpoint: WorkloadEndpoint) -> Iterator[DevWorkloadApi]:
    with DevWorkloadApi({endpoint: [WORKLOAD]}) as api:
        yield api


@pytest.fixture
def open_stream(endpoint: WorkloadEndpoint) -> Iterator[Open]:
    """Opens a stream of one call; the channels are closed after the test."""
    with ExitStack() as channels:

        def opened(
            rpc: str = SVIDS, *, at: WorkloadEndpoint = endpoint, metadata: Sequence[tuple[str, str]] = (HEADER,)
        ) -> Any:
            target = f"unix:{at.path}" if at.path else at.authority
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = channels.enter_context(grpc.insecure_channel(target, options))
            return channel.unary_stream(method_path(rpc))(b"", timeout=LIMIT, metadata=metadata)

        yield opened


def ending(stream: Any) -> tuple[str, str]:
    """Code and text with which a stream ends; earlier messages are skipped."""
    try:
        for _ in stream:
            pass
    except grpc.RpcError:
        pass
    return stream.code().name, stream.details()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.01)


@pytest.mark.parametrize("rpc", [SVIDS, BUNDLES, "FetchWITSVID", "FetchJWTBundles"])
@pytest.mark.parametrize(
    ("scene", "values"), [("no-header", []), ("header-twice", ["true", "true"]), ("header-wrong", ["True"])]
)
def test_the_security_header_must_be_there_exactly_once(
    rpc: str,
    scene: str,
    values: list[str],
    api: DevWorkloadApi,
    open_stream: Open,
    captured_status: Callable[[str], tuple[str, str]],
) -> None:
    stream = open_stream(rpc, metadata=[(HEADER[0], value) for value in values])
    assert ending(stream) == captured_status(f"{scene}/svid")


def test_wit_svids_are_refused_with_the_text_of_an_agent(
    api: DevWorkloadApi, open_stream: Open, captured_status: Callable[[str], tuple[str, str]]
) -> None:
    assert ending(open_stream("FetchWITSVID")) == captured_status("unimplemented/wit")


@pytest.mark.parametrize("rpc", ["FetchWITBundles", "FetchPie"])
def test_other_calls_are_unimplemented(rpc: str, api: DevWorkloadApi, open_stream: Open) -> None:
    assert ending(open_stream(rpc))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize(("rpc", "scene"), [(SVIDS, "no-identity/svid"), (BUNDLES, "no-identity/bundles")])
def test_a_socket_without_workloads_issues_no_identity(
    rpc: str, scene: str, endpoint: WorkloadEndpoint, open_stream: Open, captured_status: Callable[[str], tuple[str, str]]
) -> None:
    with DevWorkloadApi({endpoint: []}):
        assert ending(open_stream(rpc)) == captured_status(scene)


def test_the_first_message_comes_at_once_and_each_change_follows(api: DevWorkloadApi, open_stream: Open) -> None:
    svids, bundles = open_stream(), open_stream(BUNDLES)
    first = parse_x509_svid_response(next(svids)).svids[0]
    assert first.spiffe_id == "spiffe://a.test/x"
    assert parse_x509_bundles_response(next(bundles)).bundles == {"spiffe://a.test": first.bundle}
    api.rotate_svids()
    second = parse_x509_svid_response(next(svids)).svids[0]
    assert second.x509_svid != first.x509_svid
    assert second.bundle == first.bundle


def test_an_authority_rotation_is_three_messages_on_each_stream(api: DevWorkloadApi, open_stream: Open) -> None:
    svids, bundles = open_stream(), open_stream(BUNDLES)
    next(svids), next(bundles)
    api.prepare_authorities()
    api.activate_authorities()
    api.drop_old_authorities()
    sizes = [len(split_sequences(parse_x509_svid_response(next(svids)).svids[0].bundle)) for _ in range(3)]
    assert sizes == [2, 2, 1]
    # Activation changes no bundle, so this stream says nothing about it.
    sizes = [len(split_sequences(parse_x509_bundles_response(next(bundles)).bundles["spiffe://a.test"])) for _ in range(2)]
    assert sizes == [2, 1]


def test_nothing_is_sent_twice(api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint) -> None:
    stream = open_stream()
    first = next(stream)
    api.restore(endpoint)
    api.publish(endpoint, SVIDS, first)
    api.publish(endpoint, SVIDS, b"something else")
    assert next(stream) == b"something else"


def test_a_withdrawal_ends_open_streams_and_new_ones(
    api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint
) -> None:
    stream = open_stream()
    first = next(stream)
    api.withdraw(endpoint)
    assert ending(stream) == ("PERMISSION_DENIED", "no identity issued")
    assert ending(open_stream()) == ("PERMISSION_DENIED", "no identity issued")
    api.restore(endpoint)
    assert next(open_stream()) == first


def test_entries_are_registered_and_unregistered(api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint) -> None:
    stream = open_stream()
    next(stream)
    api.register(endpoint, Entry(parse_spiffe_id("spiffe://a.test/z"), "second"))
    assert [svid.hint for svid in parse_x509_svid_response(next(stream)).svids] == ["", "second"]
    api.unregister(endpoint, WORKLOAD)
    assert [svid.hint for svid in parse_x509_svid_response(next(stream)).svids] == ["second"]


def test_federation_starts_and_ends_on_an_open_stream(api: DevWorkloadApi, open_stream: Open) -> None:
    stream = open_stream()
    next(stream)
    domains = TrustDomain("a.test"), TrustDomain("b.test")
    api.federate(*domains)
    assert list(parse_x509_svid_response(next(stream)).federated_bundles) == ["spiffe://b.test"]
    api.unfederate(*domains)
    assert not parse_x509_svid_response(next(stream)).federated_bundles


def test_streams_can_be_ended_properly(api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint) -> None:
    stream = open_stream()
    first = next(stream)
    api.end_streams(endpoint)
    assert ending(stream) == ("OK", "")
    assert next(open_stream()) == first


@pytest.mark.parametrize("raw", [b"", b"\xff\xff not a message"])
def test_any_bytes_can_be_sent_until_the_next_change(
    raw: bytes, api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint
) -> None:
    stream = open_stream()
    next(stream)
    api.publish(endpoint, SVIDS, raw)
    assert next(stream) == raw
    assert next(open_stream()) == raw
    api.rotate_svids()
    assert parse_x509_svid_response(next(stream)).svids


def test_any_status_can_be_answered_until_the_next_change(
    api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint
) -> None:
    api.publish(endpoint, SVIDS, Refusal("UNAVAILABLE", "not now"))
    assert ending(open_stream()) == ("UNAVAILABLE", "not now")
    api.rotate_svids()
    assert next(open_stream())


def test_many_streams_are_served_at_once_and_freed_when_clients_close(
    api: DevWorkloadApi, open_stream: Open, endpoint: WorkloadEndpoint
) -> None:
    streams = [open_stream() for _ in range(64)]
    assert len({next(stream) for stream in streams}) == 1
    api.rotate_svids()
    assert len({next(stream) for stream in streams}) == 1
    assert api.stream_count(endpoint) == 64
    for stream in streams:
        stream.cancel()
    wait_until(lambda: api.stream_count(endpoint) == 0)


def test_stop_closes_streams_removes_the_socket_and_leaves_no_thread(endpoint: WorkloadEndpoint, open_stream: Open) -> None:
    with DevWorkloadApi({endpoint: [WORKLOAD]}):
        stream = open_stream()
        next(stream)
    assert ending(stream)[0] in ("UNAVAILABLE", "CANCELLED")
    assert not os.path.exists(endpoint.path)
    wait_until(lambda: not any(thread.name.startswith("workload-api") for thread in threading.enumerate()))


def test_a_restart_serves_the_same_state(api: DevWorkloadApi, open_stream: Open) -> None:
    first = next(open_stream())
    api.stop()
    api.start()
    assert next(open_stream()) == first


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_has_the_given_mode_and_the_umask_is_restored(mode: int, endpoint: WorkloadEndpoint) -> None:
    before = os.umask(0o022)
    try:
        with DevWorkloadApi({endpoint: [WORKLOAD]}, socket_mode=mode):
            assert stat.S_IMODE(os.stat(endpoint.path).st_mode) == mode
        assert os.umask(before) == 0o022
    finally:
        os.umask(before)


def test_the_default_mode_is_0600(api: DevWorkloadApi, endpoint: WorkloadEndpoint) -> None:
    assert stat.S_IMODE(os.stat(endpoint.path).st_mode) == 0o600


def test_a_stale_socket_is_replaced(endpoint: WorkloadEndpoint, open_stream: Open) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(endpoint.path)
    with DevWorkloadApi({endpoint: [WORKLOAD]}):
        assert next(open_stream())


def test_a_socket_in_use_is_left_alone(api: DevWorkloadApi, endpoint: WorkloadEndpoint, open_stream: Open) -> None:
    with pytest.raises(ConfigError, match="in use"):
        DevWorkloadApi({endpoint: [WORKLOAD]}).start()
    assert next(open_stream())


def test_a_file_is_not_replaced(endpoint: WorkloadEndpoint) -> None:
    Path(endpoint.path).write_text("precious")
    with pytest.raises(ConfigError, match="is not a socket"):
        DevWorkloadApi({endpoint: [WORKLOAD]}).start()
    assert Path(endpoint.path).read_text() == "precious"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        DevWorkloadApi({WorkloadEndpoint(path=str(tmp_path / "missing" / "api.sock")): [WORKLOAD]}).start()


def test_all_sockets_are_served_or_none(api: DevWorkloadApi, endpoint: WorkloadEndpoint, tmp_path: Path) -> None:
    other = WorkloadEndpoint(path=str(tmp_path / "other.sock"))
    with pytest.raises(ConfigError):
        DevWorkloadApi({other: [WORKLOAD], endpoint: [WORKLOAD]}).start()
    assert not os.path.exists(other.path)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_is_served_and_a_port_in_use_is_refused(address: str, open_stream: Open) -> None:
    try:
        with closing(socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip(f"{address} cannot be used here")
    endpoint = WorkloadEndpoint(host=address, port=port)
    with DevWorkloadApi({endpoint: [WORKLOAD]}):
        assert next(open_stream(at=endpoint))
        with pytest.raises(ConfigError, match="cannot listen"):
            DevWorkloadApi({endpoint: [WORKLOAD]}).start()


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:9", "tcp://[::]:9", "tcp://192.0.2.1:9", "tcp://[::ffff:127.0.0.1]:9"])
def test_only_local_addresses_are_accepted(address: str) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        DevWorkloadApi({parse_endpoint(address): [WORKLOAD]})
