"""A message is reassembled at every split of its bytes."""

from __future__ import annotations

import pytest

from tunnel.policy.evaluator import FrameParser, encode_frame


@pytest.mark.parametrize("message", [{"allowed": True}, "x" * 300, {"é\0": [1, 2**200]}])
def test_a_message_survives_every_split(message: object) -> None:
    data = encode_frame(message)
    for cut in range(len(data)):
        parser = FrameParser()
        assert parser.feed(data[:cut]) is None
        assert parser.feed(data[cut:]) == message
        assert parser.feed(data) == message
