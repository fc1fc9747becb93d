"""The identities of one run, issued by the development Workload API of this checkout and also written to files.

All peers present the same server certificate to the same client: this checkout gets its SVID from the Workload API, the
others and the load generator read the files.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.api import SVIDS, DevWorkloadApi
from tunnel.pkix.der import split_sequences
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.messages import HEADER, SvidEntry, method_path, parse_x509_svid_response

SERVER_ID = "spiffe://example.org/server"
CLIENT_ID = "spiffe://example.org/client"
_FETCH_SECONDS = 10
_LIFETIME = timedelta(hours=12)  # no rotation during a run


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files, and the Workload API that serves the same server SVID."""

    server_chain: Path
    server_key: Path
    client_chain: Path
    client_key: Path
    authorities: Path
    workload_api: str  # its address
    rotate: Callable[[], None]  # replaces the SVIDs of the Workload API


@contextlib.contextmanager
def open_identity(directory: Path) -> Iterator[Identity]:
    """Serve the server's SVID from a socket in `directory` until exit, and write both SVIDs there."""
    ids = {"server": SERVER_ID, "client": CLIENT_ID}
    endpoints = {name: WorkloadEndpoint(path=str(directory / f"{name}.sock")) for name in ids}
    entries = {endpoints[name]: [Entry(parse_spiffe_id(spiffe_id))] for name, spiffe_id in ids.items()}
    with DevWorkloadApi(entries, issuing=Issuing(ttl=_LIFETIME, ca_ttl=2 * _LIFETIME)) as api:
        for name, endpoint in endpoints.items():
            svid = _fetch(endpoint)
            (directory / f"{name}.pem").write_text(_pem(svid.x509_svid))
            (directory / "authorities.pem").write_text(_pem(svid.bundle))
            _write_key(directory / f"{name}.key", svid.x509_svid_key)
        files = [directory / name for name in ("server.pem", "server.key", "client.pem", "client.key", "authorities.pem")]
        yield Identity(files[0], files[1], files[2], files[3], files[4], str(endpoints["server"]), api.rotate_svids)


def _fetch(endpoint: WorkloadEndpoint) -> SvidEntry:
    """Return the response for every workload on that socket."""
    with grpc.insecure_channel(str(endpoint)) as channel:
        stream = channel.unary_stream(method_path(SVIDS))(b"", metadata=[HEADER], timeout=_FETCH_SECONDS, wait_for_ready=True)
        response = parse_x509_svid_response(next(iter(stream)))
        stream.cancel()
    return response.svids[0]


def _pem(certificates: bytes) -> str:
    return "".join(map(ssl.DER_cert_to_PEM_cert, split_sequences(certificates)))


def _write_key(path: Path, der: bytes) -> None:
    key = load_der_private_key(der, None)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
