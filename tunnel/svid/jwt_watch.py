"""Keeping a token fresh in a file, until told to stop.

Knows when a token is renewed and what happens while no new one can be had; must not know gRPC, flags or how a file is
written. The old token stays in its place: while it is valid it is the best there is, and afterwards an expired token says
more to whoever reads it than no file would.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from tunnel.errors import IdentityError, OutputError
from tunnel.identity.backoff import Backoff
from tunnel.identity.tokens import JwtSvid
from tunnel.spiffe.jwt import moment
from tunnel.svid.journal import Event

_STEP = 10.0  # seconds; a machine that slept wakes up with another time
_SHORTEST = 0.5  # seconds between renewals, however short a token lives
_FLOOR, _CAP = 1.0, 30.0  # seconds between attempts


class Tell(Protocol):
    """Takes one event: its word, all of it in a sentence, and the parts that a machine may want."""

    def __call__(self, event: Event, text: str, **facts: object) -> None: ...


@dataclass
class Keeper:
    """One file and where its tokens come from: the first, for which a caller may wait long, and those that follow.

    To fetch and to write blocks, and is done on threads; `stop` ends what is under way.
    """

    fetch_first: Callable[[], JwtSvid]
    fetch_next: Callable[[], JwtSvid]
    stop: Callable[[], None]
    write: Callable[[JwtSvid], None]
    tell: Tell
    wall: Callable[[], float] = time.time
    backoff: Backoff = field(default_factory=Backoff)
    _current: JwtSvid | None = None
    _complaint: str = ""
    _is_told_expired: bool = False

    def keep(self) -> None:
        """What `run` does, for a caller without a loop."""
        trio.run(self.run)

    async def run(self) -> None:
        """Keep the file until SIGTERM or SIGINT; raises IdentityError or OutputError when there is no first token."""
        failure: list[IdentityError | OutputError] = []
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_at, signals, nursery.cancel_scope)
                try:
                    await self._renew(self.fetch_first)
                except (IdentityError, OutputError) as error:
                    if not nursery.cancel_scope.cancel_called:
                        failure.append(error)
                else:
                    await self._keep()
                nursery.cancel_scope.cancel()
        if failure:
            raise failure[0]

    async def _stop_at(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _number in signals:
            self.stop()
            scope.cancel()

    async def _keep(self) -> None:
        while True:
            assert self._current is not None
            now = self.wall()
            await self._sleep_until(now + renewal_delay(self._current.expires_at - now))
            while not await self._try_to_renew():
                self._tell_expired()
                await trio.sleep(self.backoff.next(floor=_FLOOR, cap=_CAP))

    async def _try_to_renew(self) -> bool:
        try:
            await self._renew(self.fetch_next)
        except (IdentityError, OutputError) as error:
            await trio.lowlevel.checkpoint_if_cancelled()  # when we were told to stop, that is no trouble
            self._complain(error)
            return False
        self.backoff.reset()
        self._complaint = ""
        return True

    async def _renew(self, fetch: Callable[[], JwtSvid]) -> None:
        svid = await trio.to_thread.run_sync(fetch)
        if self._current is not None and svid.token.text == self._current.token.text and not self._complaint:
            return  # an agent hands out one token for some time
        await trio.to_thread.run_sync(self.write, svid)
        self._note(svid)

    def take_one(self) -> None:
        """Write one token and be done; raises IdentityError and OutputError."""
        svid = self.fetch_first()
        self.write(svid)
        self._note(svid)

    def _note(self, svid: JwtSvid) -> None:
        self._current = svid
        self._is_told_expired = False
        end = moment(svid.expires_at)
        self.tell(
            Event.WRITTEN,
            f"token of {svid.spiffe_id} for {', '.join(svid.audience)} written, valid until {end}",
            spiffe_id=str(svid.spiffe_id),
            audience=list(svid.audience),
            expires_at=end,
        )

    def _complain(self, error: IdentityError | OutputError) -> None:
        if str(error) == self._complaint:
            return
        self._complaint = str(error)
        event = Event.UNAVAILABLE if isinstance(error, IdentityError) else Event.WRITE_FAILED
        self.tell(event, f"no fresh token: {error}; the old one stays, trying again")

    def _tell_expired(self) -> None:
        assert self._current is not None
        if not self._is_told_expired and self.wall() >= self._current.expires_at:
            self._is_told_expired = True
            end = moment(self._current.expires_at)
            self.tell(Event.EXPIRED, f"the token in the file ended at {end}; trying again", expires_at=end)

    async def _sleep_until(self, due: float) -> None:
        while (left := due - self.wall()) > 0:  # noqa: ASYNC110 - no event tells that the wall clock was set
            await trio.sleep(min(left, _STEP))


def renewal_delay(remaining: float) -> float:
    """Seconds until the next token is fetched: a little after half of what is left.

    At exactly half an agent of SPIRE may still hand out the token that it has.
    """
    return max(remaining / 2 + min(1.0, remaining / 10), _SHORTEST)
