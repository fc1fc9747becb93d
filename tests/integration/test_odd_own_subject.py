"""Our own certificate with an odd subject: `check` and the start agree, and a reload never ends the process."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import authority, key_of, leaf, rewritten
from tests.support.certificate_files import replace
from tests.support.command_runner import run_tool
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, echo
from tests.support.processes import bare_environment
from tests.support.tls_peer import tls_connection

DONE = "reloading configuration complete"
# What stands in the place of a common name: the type of its string and four bytes.
ODD = {
    "T61String in Latin-1": (0x14, b"n\xe9me"),
    "UTF8String that is not UTF-8": (0x0C, b"\xff\xfe\x80\xc0"),
    "UTF8String with half a character": (0x0C, b"nam\xe2"),
    "VisibleString": (0x1A, b"name"),
    "GeneralString": (0x1B, b"name"),
    "GeneralizedTime": (0x18, b"name"),
    "UTCTime": (0x17, b"\x00\x00\x00\x00"),
    "NumericString with letters": (0x12, b"name"),
    "BOOLEAN": (0x01, b"name"),
    "NULL with content": (0x05, b"name"),
    "a context tag": (0x80, b"name"),
}


def write_odd(folder: Path, tag: int, text: bytes) -> tuple[bytes, bytes]:
    """Certificate and key in PEM."""
    signer, now = key_of("ed25519"), datetime.now(UTC).replace(microsecond=0)
    dates = {"start": now - timedelta(hours=1), "end": now + timedelta(hours=24)}
    made = leaf(issuer=authority(key=signer, **dates), subject="NAME", dns_names=("localhost",), **dates)
    odd = rewritten(made, b"\x0c\x04NAME", bytes([tag, 4]) + text, signer)
    return odd.certificate.pem, odd.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_check_and_start_agree_and_a_reload_keeps_the_connections(file_identities: FileIdentities, tmp_path: Path) -> None:
    live = file_identities.pki.leaf("server", dns=("localhost",), file="live")
    backend = file_identities.enter(Backend(echo))
    proxy = file_identities.serve(backend.target, f"--status=unix:{tmp_path / 'status'}", files=live)
    with tls_connection(proxy.address, file_identities.client_files) as peer:
        for count, (name, (tag, text)) in enumerate(ODD.items(), 1):
            chain, key = write_odd(tmp_path, tag, text)
            replace(live.key, key)
            replace(live.chain, chain)
            proxy.signal(signal.SIGHUP)
            proxy.wait_for(DONE, count=count)
            peer.send(b"x")
            assert peer.receive_exactly(1) == b"x", name
    failed = len(proxy.matches("error reloading TLS configuration"))
    assert failed + len(proxy.matches("loaded certificate")) == len(ODD) + 1


def test_a_start_is_refused_where_check_says_so(file_identities: FileIdentities, tmp_path: Path) -> None:
    backend = file_identities.enter(Backend(echo))
    for name, (tag, text) in ODD.items():
        chain, key = write_odd(tmp_path, tag, text)
        (tmp_path / "chain").write_bytes(chain)
        (tmp_path / "key").write_bytes(key)
        files = (f"--cert={tmp_path / 'chain'}", f"--key={tmp_path / 'key'}", f"--cacert={file_identities.pki.cacert}")
        line = ("server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-all", *files)
        checked = run_tool(bare_environment(), "check", *line)
        assert "Traceback" not in checked.err, name
        proxy = file_identities.start(*line)
        proxy.wait_for("listening for connections on|error:")
        if proxy.matches("listening for connections on"):
            assert checked.code == 0, (name, checked.out)
            proxy.stop()
        else:
            assert checked.code != 0, (name, checked.out)
            assert proxy.exit_code() == 1
            assert proxy.reason() in proxy.lines[-1]
            assert proxy.reason().removeprefix("error: ") in checked.out.replace("bad-certificate: ", ""), name
