"""An odd certificate as our own: a running proxy that reloads it stays up, and so do its connections."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.certificate_files import Files, replace
from tests.support.file_identities import FileIdentities
from tests.support.odd_certificates.cases import Case
from tests.support.odd_certificates.peers import key_pem, pem_of
from tests.support.odd_certificates.table import CASES, chain_of
from tests.support.plain_backends import Backend, echo
from tests.support.processes import Proxy
from tests.support.tls_peer import tls_connection

_DONE = "reloading configuration complete"


def _is_in_the_leaf(case: Case) -> bool:
    """Whether the odd thing is in the certificate that a proxy would present; a name of a case says so.

    Keys over 4096 bits are left out, because loading one takes seconds.
    """
    if any(size in case.name for size in ("rsa8", "16384")):
        return False
    return case.name.startswith(("leaf ", "name of the leaf", "empty ", "host ")) or case.name.endswith(" in leaf")


OWN = [case for case in CASES if _is_in_the_leaf(case)]


class Live(NamedTuple):
    """A server proxy whose certificate file a test replaces."""

    proxy: Proxy
    files: Files
    file_identities: FileIdentities


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with closing(FileIdentities(tmp_path_factory.mktemp("own"))) as file_identities:
        files = file_identities.pki.leaf("server", dns=("localhost",), file="live")
        backend = file_identities.enter(Backend(echo))
        proxy = file_identities.serve(backend.target, files=files)
        assert proxy.address
        yield Live(proxy, files, file_identities)


def _reload(live: Live, chain: bytes, key: bytes) -> None:
    """Replace the files and wait until the proxy has taken or refused them."""
    before = len(live.proxy.matches(_DONE))
    replace(live.files.key, key)
    replace(live.files.chain, chain)
    live.proxy.signal(signal.SIGHUP)
    live.proxy.wait_for(_DONE, count=before + 1)


def test_a_proxy_that_reloads_odd_certificates_keeps_its_connections(live: Live) -> None:
    good = live.files.chain.read_bytes(), live.files.key.read_bytes()
    with tls_connection(live.proxy.address, live.file_identities.client_files) as peer:
        for case in OWN:
            try:
                key = key_pem(chain_of(case).sent[0])
            except ValueError:  # a key that no library holds
                continue
            _reload(live, pem_of(chain_of(case).sent).encode(), key.encode())
            peer.send(b"x")
            assert peer.receive_exactly(1) == b"x", case.name
            assert live.proxy.is_running, case.name
    _reload(live, *good)
    with tls_connection(live.proxy.address, live.file_identities.client_files) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


def test_there_are_many_cases() -> None:
    assert len(OWN) > 200


@pytest.mark.parametrize("case", OWN[::25], ids=lambda case: case.name)
def test_a_proxy_starts_with_an_odd_certificate_or_says_why_not(tmp_path: Path, case: Case) -> None:
    with closing(FileIdentities(tmp_path)) as file_identities:
        files = file_identities.pki.leaf("server", file="odd")
        replace(files.key, key_pem(chain_of(case).sent[0]).encode())
        replace(files.chain, pem_of(chain_of(case).sent).encode())
        proxy = file_identities.serve("127.0.0.1:1", files=files)
        proxy.wait_for("listening for connections on|error:")
        if not proxy.matches("listening for connections on"):
            assert proxy.exit_code() == 1
            assert proxy.complaints
