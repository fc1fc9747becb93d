"""py-spiffe, a client that is not ours, is content with `tunnel dev` and follows its rotations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.support.dev_workload_api import LIMIT, end, read_sockets, tunnel_dev
from tests.support.script_runner import SCRIPTS

CLIENT = SCRIPTS / "py_spiffe_client.py"
JWT_CLIENT = SCRIPTS / "py_spiffe_jwt_client.py"


def ask(address: str, wish: object, *, client: Path = CLIENT) -> list[Any]:
    """What the client printed."""
    done = subprocess.run([sys.executable, client, address, str(wish)], capture_output=True, text=True, timeout=2 * LIMIT)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def certificates(chain: list[str]) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(bytes.fromhex(item)) for item in chain]


def test_it_fetches_svids_and_bundles_of_a_federation(tmp_path: Path) -> None:
    here, there = (f"unix://{tmp_path}/{name}.sock" for name in ("here", "there"))
    flags = [f"--id={here}=spiffe://a.test/x", f"--id={here}=spiffe://a.test/z,hint=h", f"--id={there}=spiffe://b.test/y"]
    with tunnel_dev(*flags, "--federate=a.test,b.test", "--intermediate", "--same-subject") as process:
        read_sockets(process, 2)
        context, bundles, _ = ask(here, 1)
        assert [svid["id"] for svid in context["svids"]] == ["spiffe://a.test/x", "spiffe://a.test/z"]
        assert set(context["bundles"]) == set(bundles) == {"a.test", "b.test"}
        assert context["bundles"] == ask(there, 1)[0]["bundles"]
        for svid in context["svids"]:
            leaf, intermediate = certificates(svid["chain"])
            (root,) = certificates(context["bundles"]["a.test"])
            leaf.verify_directly_issued_by(intermediate)
            intermediate.verify_directly_issued_by(root)
        assert end(process) == 0


def test_it_sees_every_rotation_and_always_has_a_bundle_that_fits(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/api.sock"
    with tunnel_dev(f"--socket={address}", "--ttl=60s", "--rotate=300ms", "--ca-rotate=500ms") as process:
        read_sockets(process)
        _, _, *updates = ask(address, 12)
        for update in updates:
            leaf = certificates(update["svids"][0]["chain"])[0]
            anchors = {anchor.subject: anchor for anchor in certificates(update["bundles"]["example.org"])}
            leaf.verify_directly_issued_by(anchors[leaf.issuer])
        chains = {update["svids"][0]["chain"][0] for update in updates}
        bundles = {tuple(sorted(update["bundles"]["example.org"])) for update in updates}
        assert len(chains) > 2, "the SVID is renewed"
        assert len(bundles) > 1, "the authority changes"
        assert end(process) == 0


def test_it_fetches_tokens_and_takes_them_by_itself_and_by_the_workload_api(tmp_path: Path) -> None:
    here, there = (f"unix://{tmp_path}/{name}.sock" for name in ("here", "there"))
    flags = [f"--id={here}=spiffe://a.test/x", f"--id={here}=spiffe://a.test/z,hint=h", f"--id={there}=spiffe://b.test/y"]
    with tunnel_dev(*flags, "--federate=a.test,b.test") as process:
        read_sockets(process, 2)
        *tokens, domains = ask(here, "db", client=JWT_CLIENT)
        assert tokens == [["spiffe://a.test/x"] * 3, ["spiffe://a.test/z"] * 3]
        assert domains == ["a.test", "b.test"]
        assert end(process) == 0
