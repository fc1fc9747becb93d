"""JWT bundles in a file: one entry for each trust domain, refreshed from the agent."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import trio

from tests.support.jwt_factory import jwk, jwks
from tests.support.processes import eventually
from tests.support.recorded_events import RecordedEvents
from tunnel.atomic_file import AtomicFile
from tunnel.backoff import Backoff
from tunnel.config.dev_model import Entry
from tunnel.devapi.api import DevWorkloadApi
from tunnel.devapi.publisher import Refusal
from tunnel.identity.tokens import accept_jwt_bundles
from tunnel.identity.workload_calls import WorkloadCalls
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.messages import BundlesResponse
from tunnel.svid.event_log import Event
from tunnel.svid.jwt_bundles import BundleDocument, BundlesRefresher, build_document


def document(**bundles: bytes) -> BundleDocument:
    """Of bundles by the first part of their trust domain's name."""
    return build_document(accept_jwt_bundles(BundlesResponse({f"spiffe://{name}.test": one for name, one in bundles.items()})))


def test_each_trust_domain_has_its_own_keys_and_those_for_tokens_alone() -> None:
    made = document(b=jwks(jwk("k2"), jwk("x", use="x509-svid")), a=jwks(jwk("k1")), c=b'{"keys": []}')
    found = {name: json.loads(b64decode(text, validate=True)) for name, text in json.loads(made.text).items()}
    assert found == {"a.test": {"keys": [jwk("k1")]}, "b.test": {"keys": [jwk("k2")]}, "c.test": {"keys": []}}
    assert made == document(a=jwks(jwk("k1")), c=b'{"keys":[]}', b=jwks(jwk("k2")))  # the same, however it comes


def test_a_bundle_that_cannot_be_read_is_left_out_and_said() -> None:
    made = document(a=jwks(jwk()), b=b"\xff")
    assert (list(json.loads(made.text)), made.trust_domains) == (["a.test"], ("a.test",))
    (why,) = made.skipped
    assert why.startswith("JWT bundle of b.test omitted, tokens of this trust domain are not trusted: not JSON")


def test_a_file_follows_the_agent_and_stays_while_it_has_nothing(tmp_path: Path) -> None:
    endpoint, file, recorded = WorkloadEndpoint(path=str(tmp_path / "api.sock")), tmp_path / "bundles.json", RecordedEvents()

    class AtOnce(Backoff):
        def next(self, *, floor: float, cap: float) -> float:
            return 0.01

    def count_of(event: Event) -> int:
        return sum(one is event for one, _ in recorded.events)

    with DevWorkloadApi({endpoint: [Entry(parse_spiffe_id("spiffe://a.test/x"))]}) as api:
        calls = WorkloadCalls(endpoint, limit=5)
        atomic_file = AtomicFile(str(file), 0o644, None)
        refresher = BundlesRefresher(
            fetch_first=lambda: build_document(calls.fetch_jwt_bundles()),
            fetch_next=lambda: build_document(calls.fetch_jwt_bundles()),
            stop=calls.stop,
            write=lambda found: atomic_file.write(found.text),
            write_event=recorded.write,
            backoff=AtOnce(),
            interval=0.01,
        )

        async def until(event: Event, count: int) -> None:
            await trio.to_thread.run_sync(eventually, lambda: count_of(event) >= count, f"{event} for the {count}. time")

        async def main() -> None:
            with trio.fail_after(120):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(refresher.run)
                    await until(Event.WRITTEN, 1)
                    first = file.read_text()
                    api.prepare_authorities()
                    await until(Event.WRITTEN, 2)
                    assert file.read_text() != first
                    api.publish(endpoint, "FetchJWTBundles", Refusal("UNIMPLEMENTED", "switched off"))
                    await until(Event.UNAVAILABLE, 1)
                    assert list(json.loads(file.read_text())) == ["a.test"]
                    nursery.cancel_scope.cancel()

        trio.run(main)
    assert recorded.events[-1][1].endswith("switched off; keeping the previous bundles, retrying")
    assert recorded.events[0] == (Event.WRITTEN, "JWT bundles of a.test written")
