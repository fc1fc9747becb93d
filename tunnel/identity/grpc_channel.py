"""The gRPC channel to a Workload API: options, address, and the meaning of status codes."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from urllib.parse import quote

from tunnel.errors import IdentityError, IdentityFault
from tunnel.spiffe.endpoint import WorkloadEndpoint

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before the import: the C core of gRPC logs to standard error
# An empty module in the place of gRPC's asyncio API, which its import loads too: 9 ms and 1 MiB for what nothing here uses.
_IS_FIRST = "grpc" not in sys.modules
if _IS_FIRST:
    sys.modules["grpc.aio"] = ModuleType("grpc.aio")
import grpc  # noqa: E402 - after the two lines above

if _IS_FIRST:  # a later import gets the real one
    del sys.modules["grpc.aio"], grpc.aio

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # the only limit on the size of an answer; the 4 MiB of gRPC are too small
_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # strict servers refuse the path of a socket as authority
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel opens a new connection instead of reusing one that hangs
    # Detects a TCP peer that has vanished. gRPC servers end a connection that pings more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)
FATAL_CODES = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED})  # a retry gets the same answer


def open_channel(endpoint: WorkloadEndpoint) -> grpc.Channel:
    """Return a channel without TLS (Workload Endpoint, section 3); it connects at the first call."""
    return grpc.insecure_channel(_target(endpoint), options=_OPTIONS)


def _target(endpoint: WorkloadEndpoint) -> str:
    if endpoint.path:
        return f"unix:{quote(os.fsencode(endpoint.path))}"  # gRPC parses a URI
    return f"ipv6:{endpoint.authority}" if ":" in endpoint.host else f"ipv4:{endpoint.authority}"


def status_details(details: str | None) -> str:
    """Return the details of a status; for a failed connect, only the system's error from gRPC's long text."""
    details = details or ""
    return details.rpartition(" error: ")[2] if details.startswith("failed to connect") else details


def fatal_error(code: str, details: str) -> IdentityError:
    """Return the error for an answer that a retry cannot change."""
    return IdentityError(IdentityFault.REFUSED, f"the Workload API refused the request: {code}: {details}")
