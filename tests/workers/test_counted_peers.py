"""Connections of peers that the parent counts for its workers."""

from __future__ import annotations

from tunnel.listener.peer_limits import PeerLimits
from tunnel.workers.worker_handle import WorkerHandle


def handle() -> WorkerHandle:
    """The parent's side, without a process."""
    made = WorkerHandle.__new__(WorkerHandle)
    made._counted = {}
    return made


def test_a_release_is_that_of_the_limits_that_have_counted() -> None:
    """A reload may have replaced the limits, or there were none when the connection began."""
    worker, before, after = handle(), PeerLimits(10, 0), PeerLimits(10, 0)
    for limits in (before, None, after):
        if limits is not None:
            limits.admit_key(b"peer", 0.0)
        worker.count_peer(1, b"peer", limits)
    for _ in range(3):
        worker.release_peer(1, b"peer")
    assert (len(before), len(after)) == (0, 0)
    assert worker._counted == {}, "no entry stays for a peer without connections"


def test_a_release_that_nothing_was_counted_for_is_ignored() -> None:
    worker = handle()
    worker.release_peer(1, b"peer")
    assert worker._counted == {}


def test_the_end_of_a_worker_releases_all() -> None:
    worker, limits = handle(), PeerLimits(10, 0)
    for peer in (b"one", b"one", b"two"):
        limits.admit_key(peer, 0.0)
        worker.count_peer(1, peer, limits)
    worker.release_peers()
    assert len(limits) == 0
    assert worker._counted == {}
