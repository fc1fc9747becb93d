"""The command that measures how long a review of open connections takes: `python -m bench.withdrawal`.

Every connection has a certificate of its own, which is the worst case, because connections of one certificate share its
verification. The peers and the backend are in another process; only the review is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from tests.support.cert_factory import key_of
from tests.support.configs import listener_config
from tests.support.revocation_lists import make_list
from tests.support.tls_ends import EARLY, LATE, admit_all, context, identity, lasting_authority
from tests.support.tunnel_harness import HOME, OURS, ROOT, RecordedLog
from tunnel.authz.rules import IdRule, Rule, TrustDomainRule
from tunnel.config.model import Access
from tunnel.identity.credentials import SvidCredentials, X509Svid
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation, GenerationConfig, build_generation
from tunnel.listener.shared_resources import open_shared_resources
from tunnel.listener.tunnel import Tunnel
from tunnel.net.address import UnixAddress
from tunnel.net.listen import open_listener
from tunnel.pkix.certificate import read_serial_number
from tunnel.pkix.revocation import NO_LISTS, RevocationLists
from tunnel.relay.loop import Loop
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.tls.records import Buffers

PARTNER = TrustDomain("b.test")
PARTNER_ROOT = lasting_authority("b.test")
ANOTHER = lasting_authority("b.test", key=key_of("p256", 8), subject="another")
PARTNERS = TrustBundle(PARTNER, (PARTNER_ROOT.certificate,))
HOME_BUNDLE = TrustBundle(HOME, (ROOT.certificate,))
EVERYONE: tuple[Rule, ...] = (TrustDomainRule(PARTNER),)


def make_generation(bundles: tuple[TrustBundle, ...], rules: tuple[Rule, ...], lists: RevocationLists = NO_LISTS) -> Generation:
    """A generation with these bundles, rules and revocation lists."""
    svid = X509Svid(parse_spiffe_id("spiffe://a.test/ours"), "", OURS.chain, OURS.leaf.key, datetime(2099, 1, 1, tzinfo=UTC))
    credentials = SvidCredentials(svid, BundleSet({bundle.trust_domain: bundle for bundle in bundles}), lists)
    return build_generation(1, credentials, GenerationConfig(True, Access(rules)))


def revoke_one(tunnel: Tunnel) -> RevocationLists:
    """A list with the certificate of one connection."""
    peer = next(one.admitted.peer for one in tunnel.connections if one.admitted is not None)
    assert peer is not None
    return RevocationLists((make_list(PARTNER_ROOT, read_serial_number(peer.leaf), begin=EARLY, end=LATE),))


@contextmanager
def open_tunnel(place: Path, count: int) -> Iterator[Tunnel]:
    """A tunnel with so many open connections, whose other ends are in a process of their own."""
    with socket.socket(socket.AF_UNIX) as backend:
        backend.bind(str(place / "backend"))
        backend.listen(64)
        shared = open_shared_resources(Loop(), RecordedLog())  # type: ignore[arg-type]
        tunnel = Tunnel(shared, listener_config(target=UnixAddress(str(place / "backend"))), lambda *_: None)
        tunnel.swap(make_generation((HOME_BUNDLE, PARTNERS), EVERYONE))
        tunnel.open(open_listener(UnixAddress(str(place / "front"))))
        child = os.fork()
        if not child:
            hold_connections(place, backend, count)
        try:
            while tunnel.counters.relayed < count:
                tunnel.loop.turn(1)
            yield tunnel
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def hold_connections(place: Path, backend: socket.socket, count: int) -> NoReturn:
    """Open the connections one by one, and keep them until this process is killed."""
    buffers, ends = Buffers(), []
    for number in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(place / "front"))
        who = identity(f"spiffe://b.test/workload/{number}", root=PARTNER_ROOT)
        end = context(who, admit_all, is_server=False).open_end(buffers)
        end.handshake(0)
        sock.sendall(end.take())
        is_done = False
        while not is_done:
            is_done = end.handshake(sock.recv_into(buffers.inbox))
        sock.sendall(end.take())
        ends.append((sock, backend.accept()[0]))
    while True:
        signal.pause()


def measure(tunnel: Tunnel, judged: Generation) -> Iterator[str]:
    """Swap a generation in, and report how long its review takes and the longest turn of the loop meanwhile."""
    before = len(tunnel)
    began = last = closed_at = time.perf_counter()
    cpu, longest, left = time.process_time(), 0.0, before
    tunnel.swap(judged)
    while tunnel.withdrawal.is_running:
        tunnel.loop.turn(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        if len(tunnel) != left:
            left, closed_at = len(tunnel), now
    cpu = time.process_time() - cpu
    yield f"{last - began:.2f} s, {cpu:.2f} s of CPU"
    yield f"closed {before - left} of {before}, the last one after {closed_at - began:.2f} s"
    yield f"longest turn {longest * 1e3:.0f} ms"


def main() -> None:
    """Measure and print one line per change."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=9_900)
    count = parser.parse_args().connections
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    one = IdRule(parse_spiffe_id("spiffe://b.test/workload/1"))
    another_authority = replace(PARTNERS, authorities=(ANOTHER.certificate,))
    two_authorities = replace(PARTNERS, authorities=(PARTNER_ROOT.certificate, ANOTHER.certificate))
    both = HOME_BUNDLE, PARTNERS
    groups: tuple[dict[str, Callable[[Tunnel], Generation]], ...] = (
        {
            "a rule is added that matters to nobody": lambda _: make_generation(both, (one, *EVERYONE)),
            "an authority is added": lambda _: make_generation((HOME_BUNDLE, two_authorities), EVERYONE),
            "one certificate is revoked": lambda tunnel: make_generation(both, EVERYONE, revoke_one(tunnel)),
            "the rule of all peers but one is removed": lambda _: make_generation(both, (one,)),
        },
        {"the trust domain is withdrawn": lambda _: make_generation((HOME_BUNDLE,), EVERYONE)},
        {"the authority is replaced": lambda _: make_generation((HOME_BUNDLE, another_authority), EVERYONE)},
    )
    for changes in groups:
        with tempfile.TemporaryDirectory() as place, open_tunnel(Path(place), count) as tunnel:
            for name, change in changes.items():
                print(f"{name}: {', '.join(measure(tunnel, change(tunnel)))}", flush=True)
            tunnel.drain()
            tunnel.abort()
            tunnel.loop.turn(0)


if __name__ == "__main__":
    main()
