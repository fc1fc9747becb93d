"""Answers to the JWT calls of a socket, with the statuses and texts of an agent of SPIRE 1.15.

The text about an invalid token is ours.
"""

from __future__ import annotations

from datetime import datetime

from tunnel.devapi.issuing_state import IssuingState
from tunnel.devapi.publisher import NO_IDENTITY, Answer, Refusal
from tunnel.errors import SpiffeIdError, TokenError, WireError
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.jwt import Validation, check_token, parse_token
from tunnel.spiffe.messages import (
    ValidateResponse,
    encode_jwt_svid_response,
    encode_validate_response,
    parse_jwt_svid_request,
    parse_validate_request,
)

_NO_AUDIENCE = Refusal("INVALID_ARGUMENT", "audience must be specified")
_NO_TOKEN = Refusal("INVALID_ARGUMENT", "svid must be specified")


def answer_fetch(state: IssuingState, endpoint: WorkloadEndpoint, message: bytes, now: datetime) -> Answer:
    """Return the answer to `FetchJWTSVID`."""
    try:
        request = parse_jwt_svid_request(message)
        if not request.audience:
            return _NO_AUDIENCE
        wanted = parse_spiffe_id(request.spiffe_id) if request.spiffe_id else None
    except WireError as error:
        return _unreadable(error)
    except SpiffeIdError as error:
        return Refusal("INVALID_ARGUMENT", f"invalid requested SPIFFE ID: {error}")
    svids = state.jwt_svids(endpoint, request.audience, wanted, now)
    return encode_jwt_svid_response(svids) if svids else NO_IDENTITY


def answer_validate(state: IssuingState, endpoint: WorkloadEndpoint, message: bytes, now: datetime) -> Answer:
    """Return the answer to `ValidateJWTSVID`; a socket without an identity has no bundle."""
    try:
        request = parse_validate_request(message)
    except WireError as error:
        return _unreadable(error)
    if not request.audience:
        return _NO_AUDIENCE
    if not request.svid:
        return _NO_TOKEN
    try:
        token = parse_token(request.svid)
        spiffe_id = check_token(token, Validation(request.audience, now.timestamp()))
        state.check_signature(endpoint, token, spiffe_id)
    except TokenError as error:
        return Refusal("INVALID_ARGUMENT", str(error))
    return encode_validate_response(ValidateResponse(str(spiffe_id), token.claims))


def _unreadable(error: WireError) -> Refusal:
    return Refusal("INTERNAL", f"grpc: error unmarshalling request: {error}")
