"""After an error of accept(2): which ones need a pause, and how long it is."""

from __future__ import annotations

import errno

import pytest

from tunnel.net.accept_backoff import AcceptBackoff


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_an_error_of_the_connection_needs_no_pause(code: int) -> None:
    assert AcceptBackoff().pause_after(OSError(code, "")) is None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINVAL])
def test_other_errors_need_a_pause_that_doubles_up_to_a_second(code: int) -> None:
    backoff = AcceptBackoff()
    pauses = [backoff.pause_after(OSError(code, "")) for _ in range(10)]
    assert pauses == [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]


def test_an_error_of_the_connection_does_not_change_the_next_pause() -> None:
    backoff = AcceptBackoff()
    codes = (errno.EMFILE, errno.ECONNABORTED, errno.EMFILE)
    assert [backoff.pause_after(OSError(code, "")) for code in codes] == [0.005, None, 0.01]


def test_the_first_pause_is_used_again_after_a_connection() -> None:
    backoff = AcceptBackoff()
    backoff.pause_after(OSError(errno.EMFILE, ""))
    backoff.reset()
    assert backoff.pause_after(OSError(errno.EMFILE, "")) == 0.005
