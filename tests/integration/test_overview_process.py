"""The overview document of a real process."""

from __future__ import annotations

import time
from typing import Any

from tests.support.config_files import ServedFile
from tests.support.plain_backends import Backend, connect, echo, receive_all
from tests.support.processes import eventually
from tests.support.run_line import has_echo
from tests.support.unix_status_port import status
from tests.support.workloads import CLIENT, SERVER, STRANGER, Workloads


def served_file(workloads: Workloads) -> ServedFile:
    made = ServedFile(workloads)
    backend = workloads.enter(Backend(echo))
    made.add("one", backend.target, "max-concurrent-conns = 9")
    made.add("two", backend.target)
    made.start()
    return made


def overview(served: ServedFile, query: str = "") -> dict[str, Any]:
    code, document = status(served.status, query, "/_overview")
    assert code == 200
    return document


def test_the_overview_shows_who_is_connected_and_who_was_refused(workloads: Workloads) -> None:
    served = served_file(workloads)
    with served.connect("one") as peer:
        assert has_echo(peer)
        assert not served.is_admitted("two", STRANGER)
        eventually(lambda: bool(overview(served)["refusals"]), "a refusal in the overview")
        document = overview(served)
    assert (document["phase"], document["ready"], document["pid"]) == ("listening", True, served.process.pid)
    assert document["started"] <= document["time"] <= time.time()
    one, two = document["listeners"]
    assert [one[key] for key in ("name", "direction", "spiffe_id", "open", "accepted", "relayed", "refused", "handshakes")] == [
        *("one", "inbound", SERVER, 1, 1, 1, 0, 1),
    ]
    assert (one["forwarded_bytes"], one["returned_bytes"], one["limits"]["connections"]) == (4, 4, {"used": 1, "max": 9})
    assert (two["accepted"], two["relayed"], two["refused"], two["failed"]) == (1, 0, 1, 0)
    (peer_row,) = document["peers"]
    assert (peer_row["listener"], peer_row["peer"], peer_row["open"], peer_row["forwarded_bytes"]) == ("one", CLIENT, 1, 4)
    (refusal,) = document["refusals"]
    assert (refusal["listener"], refusal["peer"], refusal["reason"]) == ("two", STRANGER, "no-matching-rule")
    assert (refusal["flag"], refusal["entry"]) == (f"--allow-id {STRANGER}", f'{{ allow = "{STRANGER}" }}')
    (identity,) = document["identities"]
    assert (identity["subject"], identity["listeners"], len(identity["rotations"])) == (SERVER, ["one", "two"], 1)
    assert [domain["name"] for domain in document["trust_domains"]] == ["a.test"]


def test_the_overview_may_be_about_one_listener(workloads: Workloads) -> None:
    served = served_file(workloads)
    assert not served.is_admitted("two", STRANGER)
    eventually(lambda: bool(overview(served)["refusals"]), "a refusal in the overview")
    document = overview(served, "?listener=one")
    assert [one["name"] for one in document["listeners"]] == ["one"]
    assert (document["identities"][0]["listeners"], document["refusals"]) == (["one"], [])
    with connect(str(served.status)) as sock:
        sock.sendall(b"GET /_overview?listener=absent HTTP/1.0\r\n\r\n")
        assert receive_all(sock).startswith(b"HTTP/1.1 404")
