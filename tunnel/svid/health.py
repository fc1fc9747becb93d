"""Health over HTTP.

Knows three paths and what each answers; must not know sockets, nor what makes an identity healthy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from tunnel.http.connection import Request, Respond, Response
from tunnel.status.exposition import PROMETHEUS_TYPE, encode_head, encode_sample
from tunnel.svid.watch_state import WatchState


def answer_health(
    standing: WatchState, look_at_files: Callable[[], Awaitable[str]], wall: Callable[[], float] = time.time
) -> Respond:
    """A function that answers every request: 200 for yes, 503 for no, and the reasons as JSON.

    `look_at_files` is asked at each request why the written files are not at their paths; "" when they are.
    """

    async def respond(request: Request) -> Response:
        fault, now = await look_at_files(), wall()
        document = standing.document(now, fault)
        match request.path:
            case "/live":
                return _say(is_well=standing.is_live(now), document=document)
            case "/ready":
                return _say(is_well=standing.is_ready(now, fault), document=document)
            case "/metrics":
                return Response(_encode(standing.numbers(fault)), content_type=PROMETHEUS_TYPE)
        return Response(b"404 page not found: /live, /ready and /metrics are here\n", HTTPStatus.NOT_FOUND)

    return respond


def _say(*, is_well: bool, document: dict[str, object]) -> Response:
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(json.dumps(document).encode() + b"\n", status, "application/json")


def _encode(numbers: dict[str, tuple[str, float]]) -> bytes:
    return "".join(encode_head(name, kind) + encode_sample(name, value) for name, (kind, value) in numbers.items()).encode()
