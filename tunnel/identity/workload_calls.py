"""Single Workload API calls with retries: the JWT profile and the X.509 bundles (Workload API, sections 4, 6, appendix A).

Calls block: a caller that must not block makes them in a thread and ends them by `stop`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from tunnel.backoff import Backoff
from tunnel.errors import IdentityError, IdentityFault, SpiffeIdError, TokenError, TokenFault, WireError
from tunnel.identity.grpc_channel import FATAL_CODES, fatal_error, open_channel, status_details
from tunnel.identity.tokens import TokenAnswer, accept_jwt_bundles, accept_token
from tunnel.identity.update import accept_bundles
from tunnel.identity.wait_notice import NOTICE_DELAY
from tunnel.identity.workload import NO_IDENTITY_FLOOR
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.jwks import JwtBundles
from tunnel.spiffe.messages import (
    HEADER,
    JwtSvidRequest,
    ValidateRequest,
    ValidateResponse,
    encode_jwt_svid_request,
    encode_validate_request,
    method_path,
    parse_jwt_bundles_response,
    parse_jwt_svid_response,
    parse_validate_response,
    parse_x509_bundles_response,
)
from tunnel.spiffe.selection import Selection

# isort: split
import grpc  # last: tunnel.identity.grpc_channel configures its logging first

LIMIT = 15.0  # seconds
_ATTEMPT = 10.0  # seconds for one call: an agent may accept it and never answer
_CAP = 5.0  # seconds between attempts

T = TypeVar("T")


class WorkloadCalls:
    """Calls an endpoint, with retries while it refuses or is unavailable, for at most `limit` seconds (0: no limit).

    `on_wait` gets one message for each call that takes longer than NOTICE_DELAY, possibly on another thread.
    """

    def __init__(
        self,
        endpoint: WorkloadEndpoint,
        *,
        limit: float = LIMIT,
        on_wait: Callable[[str], None] = lambda text: None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._limit = limit or math.inf
        self._on_wait = on_wait
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._wall = wall
        self._stopping = threading.Event()
        self._call: Any = None
        self._problem = ""

    def stop(self) -> None:
        """Cancel the current call; it and every later call raise IdentityError."""
        self._stopping.set()
        if self._call is not None:
            self._call.cancel()

    def fetch_token(self, audience: Sequence[str], selection: Selection) -> TokenAnswer:
        """Fetch the selected JWT-SVID; raises IdentityError."""
        wanted = str(selection.spiffe_id) if selection.spiffe_id else ""
        request = encode_jwt_svid_request(JwtSvidRequest(tuple(audience), wanted))

        def parse(message: bytes) -> TokenAnswer:
            now = datetime.fromtimestamp(self._wall(), UTC)
            return accept_token(parse_jwt_svid_response(message), audience, now, selection)

        return self._call_with_retries("FetchJWTSVID", request, parse)

    def validate_token(self, audience: str, token: str) -> ValidateResponse:
        """Let the agent validate a token; raises TokenError if it refuses the token, and IdentityError."""
        request = encode_validate_request(ValidateRequest(audience, token))
        try:
            response = self._call_with_retries("ValidateJWTSVID", request, parse_validate_response)
        except _InvalidArgument as error:
            raise TokenError(TokenFault.REFUSED, error.details) from error
        try:
            parse_spiffe_id(response.spiffe_id)
        except SpiffeIdError as error:
            raise IdentityError(IdentityFault.WRONG_ID, f"the answer contains no SPIFFE ID: {error}") from error
        return response

    def fetch_jwt_bundles(self) -> JwtBundles:
        """Fetch the JWT bundles by trust domain; raises IdentityError."""
        return self._call_with_retries(
            "FetchJWTBundles", b"", lambda message: accept_jwt_bundles(parse_jwt_bundles_response(message))
        )

    def fetch_x509_bundles(self) -> BundleSet:
        """Fetch the X.509 bundles by trust domain; raises IdentityError."""
        return self._call_with_retries(
            "FetchX509Bundles", b"", lambda message: accept_bundles(parse_x509_bundles_response(message))
        )

    def _call_with_retries(self, rpc: str, request: bytes, parse: Callable[[bytes], T]) -> T:
        """Return the parsed answer; an answer that `parse` refuses is retried like a failed call."""
        deadline = self._clock() + self._limit
        self._backoff.reset()
        self._problem = ""
        with self._reporting_wait(rpc):
            while True:
                self._check_running()
                floor = 0.0
                try:
                    return parse(self._attempt(rpc, request, deadline))
                except WireError as error:
                    self._problem = f"malformed answer: {error}"
                except _Refused as error:
                    if isinstance(error, _InvalidArgument) or error.code in FATAL_CODES:
                        raise
                    if not (self._problem and self._clock() >= deadline):  # the previous error is more useful than a timeout
                        self._problem = error.problem
                    floor = NO_IDENTITY_FLOOR if error.code is grpc.StatusCode.PERMISSION_DENIED else 0.0
                except IdentityError as error:
                    self._problem = f"{error.reason.value}: {error}"
                self._pause(rpc, self._backoff.next(floor=floor, cap=_CAP), deadline)

    def _pause(self, rpc: str, delay: float, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= delay:
            raise IdentityError(
                IdentityFault.TIMEOUT,
                f"no answer from the Workload API at {self._endpoint} within {self._limit:g}s ({rpc}): {self._problem}",
            )
        self._stopping.wait(delay)

    def _attempt(self, rpc: str, request: bytes, deadline: float) -> bytes:
        """Return the first message of the answer; a unary answer is a stream with one message."""
        seconds = max(min(_ATTEMPT, deadline - self._clock()), 0.001)
        with open_channel(self._endpoint) as channel:
            self._call = call = channel.unary_stream(method_path(rpc))(request, timeout=seconds, metadata=(HEADER,))
            if self._stopping.is_set():
                call.cancel()
            try:
                for message in call:
                    call.cancel()
                    return bytes(message)
            except grpc.RpcError:
                pass  # the call has the status
            self._check_running()
            raise _refused(call.code(), status_details(call.details()))

    def _check_running(self) -> None:
        if self._stopping.is_set():
            raise IdentityError(IdentityFault.STOPPED, "stopped during a Workload API call")

    @contextmanager
    def _reporting_wait(self, rpc: str) -> Iterator[None]:
        def report() -> None:
            why = f": {self._problem}" if self._problem else ""
            self._on_wait(f"waiting for the Workload API at {self._endpoint} ({rpc}){why}")

        timer = threading.Timer(NOTICE_DELAY, report)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class _Refused(IdentityError):
    """A status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        error = fatal_error(code.name, details)
        super().__init__(error.reason, str(error))
        self.code = code
        self.details = details
        status = f"{code.name}: {details}".rstrip(": ")
        is_denied = code is grpc.StatusCode.PERMISSION_DENIED
        self.problem = f"{'no identity issued to this process' if is_denied else 'unavailable'} ({status})"


class _InvalidArgument(_Refused):
    """The agent refuses an argument of the request, for example a token."""


def _refused(code: grpc.StatusCode, details: str) -> _Refused:
    return (_InvalidArgument if code is grpc.StatusCode.INVALID_ARGUMENT else _Refused)(code, details)
