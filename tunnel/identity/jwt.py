"""Single calls of the Workload API: the JWT profile, and one look at the X.509 bundles.

Knows gRPC, status codes and when to try again (Workload API, sections 4, 6 and appendix A); must not know what an answer is
used for. Calls block, so a caller that must not wait makes them in a thread, and ends them by `stop`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from tunnel.errors import IdentityError, IdentityFault, SpiffeIdError, TokenError, TokenFault, WireError
from tunnel.identity.backoff import Backoff
from tunnel.identity.tokens import TokenAnswer, accept_jwt_bundles, accept_token
from tunnel.identity.update import accept_bundles
from tunnel.identity.workload import CHANNEL_OPTIONS, FATAL, grpc_target, plain_words, refusal
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
import grpc  # last: tunnel.identity.workload has made it quiet

LIMIT = 15.0  # seconds
_ATTEMPT = 10.0  # seconds for one call, of an agent that takes it and never answers
_CAP = 5.0  # seconds between attempts
_NO_IDENTITY_FLOOR = 1.0  # an agent attests the caller anew each time
_LONG = 1.0  # seconds after which a person would like to know

T = TypeVar("T")


class WorkloadCalls:
    """Asks an endpoint, again while it refuses or is away, for at most `limit` seconds (0: for ever).

    `say` is told once of each call that takes long, perhaps on another thread.
    """

    def __init__(
        self,
        endpoint: WorkloadEndpoint,
        *,
        limit: float = LIMIT,
        say: Callable[[str], None] = lambda text: None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._limit = limit or math.inf
        self._say = say
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._wall = wall
        self._stopping = threading.Event()
        self._call: Any = None
        self._trouble = ""

    def stop(self) -> None:
        """End whatever is under way; it raises IdentityError, and so does everything later."""
        self._stopping.set()
        if self._call is not None:
            self._call.cancel()

    def fetch_token(self, audience: Sequence[str], selection: Selection) -> TokenAnswer:
        """The token that is wanted; raises IdentityError."""
        wanted = str(selection.spiffe_id) if selection.spiffe_id else ""
        request = encode_jwt_svid_request(JwtSvidRequest(tuple(audience), wanted))

        def take(message: bytes) -> TokenAnswer:
            now = datetime.fromtimestamp(self._wall(), UTC)
            return accept_token(parse_jwt_svid_response(message), audience, now, selection)

        return self._ask("FetchJWTSVID", request, take)

    def validate_token(self, audience: str, token: str) -> ValidateResponse:
        """Whose token it is, by the agent's word; raises TokenError when it refuses the token, and IdentityError."""
        request = encode_validate_request(ValidateRequest(audience, token))
        try:
            response = self._ask("ValidateJWTSVID", request, parse_validate_response)
        except _InvalidArgument as error:
            raise TokenError(TokenFault.REFUSED, error.details) from error
        try:
            parse_spiffe_id(response.spiffe_id)
        except SpiffeIdError as error:
            raise IdentityError(IdentityFault.WRONG_ID, f"its answer names no SPIFFE ID: {error}") from error
        return response

    def fetch_jwt_bundles(self) -> JwtBundles:
        """The keys by which tokens are checked, by trust domain; raises IdentityError."""
        return self._ask("FetchJWTBundles", b"", lambda message: accept_jwt_bundles(parse_jwt_bundles_response(message)))

    def fetch_x509_bundles(self) -> BundleSet:
        """The authorities by which certificates are checked, by trust domain; raises IdentityError."""
        return self._ask("FetchX509Bundles", b"", lambda message: accept_bundles(parse_x509_bundles_response(message)))

    def _ask(self, rpc: str, request: bytes, take: Callable[[bytes], T]) -> T:
        """What `take` makes of the answer; an answer that it refuses is asked for again, as one that did not come."""
        deadline = self._clock() + self._limit
        self._backoff.reset()
        self._trouble = ""
        with self._saying_when_long(rpc):
            while True:
                self._check_running()
                floor = 0.0
                try:
                    return take(self._attempt(rpc, request, deadline))
                except WireError as error:
                    self._trouble = f"an answer that cannot be read: {error}"
                except _Refused as error:
                    if isinstance(error, _InvalidArgument) or error.code in FATAL:
                        raise
                    if not (self._trouble and self._clock() >= deadline):  # the end of our time says less
                        self._trouble = error.trouble
                    floor = _NO_IDENTITY_FLOOR if error.code is grpc.StatusCode.PERMISSION_DENIED else 0.0
                except IdentityError as error:
                    self._trouble = f"{error.reason.value}: {error}"
                self._pause(rpc, self._backoff.next(floor=floor, cap=_CAP), deadline)

    def _pause(self, rpc: str, delay: float, deadline: float) -> None:
        left = deadline - self._clock()
        if left <= delay:
            raise IdentityError(
                IdentityFault.TIMEOUT,
                f"nothing came from the Workload API at {self._endpoint} within {self._limit:g}s ({rpc}): {self._trouble}",
            )
        self._stopping.wait(delay)

    def _attempt(self, rpc: str, request: bytes, deadline: float) -> bytes:
        """The first message of the answer; a call with one answer is a stream that ends behind it."""
        seconds = max(min(_ATTEMPT, deadline - self._clock()), 0.001)
        with grpc.insecure_channel(grpc_target(self._endpoint), options=CHANNEL_OPTIONS) as channel:
            self._call = call = channel.unary_stream(method_path(rpc))(request, timeout=seconds, metadata=(HEADER,))
            if self._stopping.is_set():
                call.cancel()
            try:
                for message in call:
                    call.cancel()
                    return bytes(message)
            except grpc.RpcError:
                pass  # the call itself knows how it ended
            self._check_running()
            raise _refused(call.code(), plain_words(call.details() or ""))

    def _check_running(self) -> None:
        if self._stopping.is_set():
            raise IdentityError(IdentityFault.STOPPED, "stopped while the Workload API was asked")

    @contextmanager
    def _saying_when_long(self, rpc: str) -> Iterator[None]:
        def tell() -> None:
            why = f": {self._trouble}" if self._trouble else ""
            self._say(f"waiting for the Workload API at {self._endpoint} ({rpc}){why}")

        timer = threading.Timer(_LONG, tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class _Refused(IdentityError):
    """A status in the place of an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        error = refusal(code.name, details)
        super().__init__(error.reason, str(error))
        self.code = code
        self.details = details
        said = f"{code.name}: {details}".rstrip(": ")
        is_denied = code is grpc.StatusCode.PERMISSION_DENIED
        self.trouble = f"it gives this process no such identity ({said})" if is_denied else f"it is not available ({said})"


class _InvalidArgument(_Refused):
    """Something is wrong with the question, which may be the token that it is about."""


def _refused(code: grpc.StatusCode, details: str) -> _Refused:
    return (_InvalidArgument if code is grpc.StatusCode.INVALID_ARGUMENT else _Refused)(code, details)
