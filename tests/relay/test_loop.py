"""Batches of events, timers in order, and an exception that ends only its owner."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import trio

from tunnel.relay.loop import _STALE_TIMERS, IN, Loop, Timer


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class RecordingOwner:
    """An owner that records its calls."""

    def __init__(self) -> None:
        self.crashes: list[str] = []
        self.events: list[int] = []

    def crashed(self, crash: Exception) -> None:
        self.crashes.append(str(crash))

    def ready(self, events: int) -> None:
        self.events.append(events)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    made = Loop(clock)
    yield made
    made.close()


Pairs = Callable[[], tuple[socket.socket, socket.socket]]


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    opened: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        both = socket.socketpair()
        for sock in both:
            sock.setblocking(False)
            opened.append(sock)
        return both

    yield make
    for sock in opened:
        sock.close()


def settle(loop: Loop) -> None:
    """Run a turn for the first event of a new socket, which is that it can be written."""
    loop.turn(0)


def fails(text: str) -> Callable[..., None]:
    def action(*_args: object) -> None:
        raise RuntimeError(text)

    return action


# -- deadlines


def test_timers_fire_in_the_order_of_their_deadlines(loop: Loop, clock: Clock) -> None:
    fired: list[int] = []
    for due in (5, 1, 3, 2, 4):
        loop.call_at(clock.now + due, lambda due=due: fired.append(due), RecordingOwner())  # type: ignore[misc]
    loop.turn(0)
    assert fired == []
    clock.now += 3
    loop.turn(0)
    assert fired == [1, 2, 3], "a deadline that is reached is due"
    clock.now += 10
    loop.turn(0)
    assert fired == [1, 2, 3, 4, 5]


def test_a_timer_fires_once(loop: Loop, clock: Clock) -> None:
    fired: list[float] = []
    loop.call_at(clock.now, lambda: fired.append(clock.now), RecordingOwner())
    for _ in range(3):
        loop.turn(0)
        clock.now += 1
    assert fired == [100.0]


def test_a_cancelled_timer_does_nothing_and_may_be_cancelled_again(loop: Loop, clock: Clock) -> None:
    fired: list[str] = []
    timer = loop.call_at(clock.now + 1, lambda: fired.append("cancelled"), RecordingOwner())
    kept = loop.call_at(clock.now + 1, lambda: fired.append("kept"), RecordingOwner())
    for _ in range(3):
        loop.cancel(timer)
    clock.now += 2
    loop.turn(0)
    assert fired == ["kept"]
    loop.cancel(kept)
    loop.cancel(timer)
    loop.turn(0)
    assert fired == ["kept"]


def test_a_timer_may_cancel_one_that_is_due_in_the_same_turn(loop: Loop, clock: Clock) -> None:
    fired: list[str] = []
    second = loop.call_at(clock.now + 1, lambda: fired.append("second"), RecordingOwner())
    loop.call_at(clock.now, lambda: loop.cancel(second), RecordingOwner())
    clock.now += 5
    loop.turn(0)
    assert fired == []


def test_a_timer_may_set_another(loop: Loop, clock: Clock) -> None:
    fired: list[float] = []

    def again() -> None:
        fired.append(clock.now)
        loop.call_at(clock.now + 1, again, RecordingOwner())

    again()
    for _ in range(3):
        clock.now += 1
        loop.turn(0)
    assert fired == [100, 101, 102, 103]


def test_cancelled_timers_do_not_pile_up(loop: Loop, clock: Clock) -> None:
    """A busy proxy cancels nearly every connect timeout it sets."""
    fired: list[int] = []
    lasting = [loop.call_at(clock.now + 50 + n, lambda n=n: fired.append(n), RecordingOwner()) for n in range(5)]  # type: ignore[misc]
    for _ in range(20 * _STALE_TIMERS):
        loop.cancel(loop.call_at(clock.now + 10, fails("cancelled"), RecordingOwner()))
        assert len(loop._timers) <= len(lasting) + 2 * _STALE_TIMERS
    clock.now += 100
    loop.turn(0)
    assert fired == [0, 1, 2, 3, 4]


def test_the_count_of_cancelled_timers_survives_their_falling_due(loop: Loop, clock: Clock) -> None:
    for _ in range(3):
        timers = [loop.call_at(clock.now + 1, fails("cancelled"), RecordingOwner()) for _ in range(_STALE_TIMERS - 1)]
        for timer in timers:
            loop.cancel(timer)
        clock.now += 2
        loop.turn(0)
        assert (loop._timers, loop._cancelled) == ([], 0)


def test_a_cancelled_timer_holds_on_to_nobody(loop: Loop, clock: Clock) -> None:
    timer: Timer = loop.call_at(clock.now + 1, fails("cancelled"), RecordingOwner())
    loop.cancel(timer)
    assert timer.owner is None
    assert timer.action is None


# -- events


def test_a_watched_socket_gets_each_event_once(loop: Loop, pairs: Pairs) -> None:
    near, far = pairs()
    who = RecordingOwner()
    loop.watch(near, who.ready, who)
    loop.turn(0)
    far.send(b"x")
    loop.turn(0)
    loop.turn(0)
    assert len(who.events) == 2
    assert who.events[-1] & IN


def test_a_listener_gets_events_while_connections_wait(loop: Loop, pairs: Pairs) -> None:
    near, far = pairs()
    who = RecordingOwner()
    loop.watch_listener(near, who.ready, who)
    far.send(b"x")
    for _ in range(3):
        loop.turn(0)
    assert who.events == [IN] * 3


def test_who_asks_to_be_called_again_is_called_in_the_next_turn_without_an_event(loop: Loop, pairs: Pairs) -> None:
    near, _far = pairs()
    who = RecordingOwner()
    loop.watch(near, who.ready, who)
    settle(loop)
    who.events.clear()
    loop.call_again(near)
    assert who.events == []
    loop.turn()  # does not wait
    loop.turn(0)
    assert who.events == [0]


def test_to_be_called_again_is_not_to_starve_others(loop: Loop, pairs: Pairs) -> None:
    (near, _), (other, other_far) = pairs(), pairs()
    who = RecordingOwner()
    loop.watch(near, lambda _events: loop.call_again(near), RecordingOwner())
    loop.watch(other, who.ready, who)
    settle(loop)
    other_far.send(b"x")
    loop.turn()
    assert len(who.events) == 2


def test_a_socket_can_pass_to_another_handler(loop: Loop, pairs: Pairs) -> None:
    near, far = pairs()
    first, second = RecordingOwner(), RecordingOwner()
    loop.rewatch(near, first.ready, first)
    settle(loop)
    loop.rewatch(near, second.ready, second)
    far.send(b"x")
    loop.turn(0)
    assert (len(first.events), len(second.events)) == (1, 1)


def test_an_unwatched_socket_stays_open_and_can_be_watched_again(loop: Loop, pairs: Pairs) -> None:
    near, far = pairs()
    who = RecordingOwner()
    loop.watch(near, who.ready, who)
    settle(loop)
    loop.unwatch(near)
    loop.unwatch(near)
    far.send(b"x")
    loop.turn(0)
    assert len(who.events) == 1
    loop.watch(near, who.ready, who)
    loop.turn(0)
    assert who.events[1] & IN


def test_a_retired_socket_is_closed_after_the_batch(loop: Loop, pairs: Pairs) -> None:
    near, _far = pairs()
    open_inside: list[bool] = []

    def give_up(_events: int) -> None:
        loop.retire(near)
        open_inside.append(near.fileno() >= 0)

    loop.watch(near, give_up, RecordingOwner())
    loop.turn(0)
    assert open_inside == [True]
    assert near.fileno() == -1


def test_a_socket_that_was_never_watched_can_be_retired(loop: Loop, pairs: Pairs) -> None:
    near, _far = pairs()
    loop.retire(near)
    loop.turn(0)
    assert near.fileno() == -1


def test_an_event_of_the_same_batch_does_not_reach_who_was_retired_in_it(loop: Loop, pairs: Pairs) -> None:
    (one, one_far), (two, two_far) = pairs(), pairs()
    heard: list[socket.socket] = []

    def give_up_the_other(own: socket.socket, other: socket.socket) -> Callable[[int], None]:
        def handler(_events: int) -> None:
            heard.append(own)
            loop.retire(other)

        return handler

    loop.watch(one, give_up_the_other(one, two), RecordingOwner())
    loop.watch(two, give_up_the_other(two, one), RecordingOwner())
    one_far.send(b"x")
    two_far.send(b"x")
    loop.turn(0)
    assert len(heard) == 1


def test_a_descriptor_is_not_used_again_within_a_batch(loop: Loop, pairs: Pairs) -> None:
    """An event for the old socket would reach the new one."""
    (one, one_far), (two, two_far) = pairs(), pairs()
    fresh = RecordingOwner()
    made: list[socket.socket] = []
    numbers = {one.fileno(), two.fileno()}

    def replace(old: socket.socket, other: socket.socket) -> Callable[[int], None]:
        def handler(_events: int) -> None:
            if not made:
                loop.retire(old)
                loop.retire(other)
                made.extend(pairs())
                loop.watch(made[0], fresh.ready, fresh)

        return handler

    loop.watch(one, replace(one, two), RecordingOwner())
    loop.watch(two, replace(two, one), RecordingOwner())
    one_far.send(b"x")
    two_far.send(b"x")
    loop.turn(0)
    assert fresh.events == []
    assert made[0].fileno() not in numbers
    later, _ = pairs()
    assert later.fileno() in numbers, "after the batch the number is free"


def test_a_wish_to_be_called_again_that_outlives_its_socket_calls_nobody_wrongly(loop: Loop, pairs: Pairs) -> None:
    near, _far = pairs()
    other, _ = pairs()
    who, stranger = RecordingOwner(), RecordingOwner()
    loop.watch(near, who.ready, who)
    loop.watch(other, stranger.ready, stranger)
    settle(loop)
    loop.call_again(near)
    loop.retire(near)
    loop.turn(0)
    loop.turn(0)
    assert len(who.events) == 1
    assert len(stranger.events) == 1


# -- other threads


def test_a_call_from_a_thread_wakes_the_loop(clock: Clock, loop: Loop) -> None:
    seen: list[threading.Thread] = []

    def ask() -> None:
        loop.call_from_thread(lambda: (seen.append(threading.current_thread()), loop.stop()))

    thread = threading.Thread(target=ask)
    thread.start()
    loop.run()
    thread.join()
    assert seen == [threading.current_thread()]


def test_calls_from_a_thread_keep_their_order_and_come_all(loop: Loop) -> None:
    seen: list[int] = []
    for number in range(100):
        loop.call_from_thread(lambda number=number: seen.append(number))  # type: ignore[misc]
    loop.turn(0)
    assert seen == list(range(100))


def test_what_is_asked_for_soon_comes_at_the_end_of_the_turn_and_its_own_wish_in_the_next(loop: Loop) -> None:
    seen: list[str] = []
    loop.call_soon(lambda: (seen.append("first"), loop.call_soon(lambda: seen.append("second"))))
    loop.turn()
    assert seen == ["first"]
    loop.turn()
    assert seen == ["first", "second"]


# -- bugs


def test_a_bug_in_a_handler_ends_its_owner_and_the_rest_of_the_batch_is_handled(loop: Loop, pairs: Pairs, clock: Clock) -> None:
    owners = [RecordingOwner() for _ in range(5)]
    for number, owner in enumerate(owners):
        near, _far = pairs()
        loop.watch(near, fails("a bug") if number in (1, 3) else owner.ready, owner)
    timed = RecordingOwner()
    loop.call_at(clock.now, lambda: timed.events.append(0), timed)
    loop.turn(0)
    assert [owner.crashes for owner in owners] == [[], ["a bug"], [], ["a bug"], []]
    assert [len(owner.events) for owner in owners] == [1, 0, 1, 0, 1]
    assert timed.events == [0], "and the timers of the turn too"


def test_a_bug_in_a_timer_ends_its_owner_and_the_other_timers_fire(loop: Loop, clock: Clock) -> None:
    owners = [RecordingOwner() for _ in range(3)]
    loop.call_at(clock.now, lambda: owners[0].events.append(0), owners[0])
    loop.call_at(clock.now, fails("late bug"), owners[1])
    loop.call_at(clock.now, lambda: owners[2].events.append(0), owners[2])
    loop.turn(0)
    assert [owner.crashes for owner in owners] == [[], ["late bug"], []]
    assert [owner.events for owner in owners] == [[0], [], [0]]
    assert not loop._timers


def test_a_bug_after_the_socket_is_retired_is_reported(loop: Loop, pairs: Pairs) -> None:
    log_capture: list[str] = []
    loop.on_unowned_crash = lambda crash: log_capture.append(str(crash))
    near, _far = pairs()
    other, _ = pairs()
    who, neighbour = RecordingOwner(), RecordingOwner()

    def handler(_events: int) -> None:
        loop.retire(near)
        raise RuntimeError("after the end")

    loop.watch(near, handler, who)
    loop.watch(other, neighbour.ready, neighbour)
    loop.turn(0)
    assert log_capture == ["after the end"]
    assert who.crashes == []
    assert len(neighbour.events) == 1
    assert near.fileno() == -1


def test_a_bug_that_nobody_owns_is_not_hidden(loop: Loop, pairs: Pairs) -> None:
    near, _far = pairs()

    def handler(_events: int) -> None:
        loop.retire(near)
        raise RuntimeError("nobody's")

    loop.watch(near, handler, RecordingOwner())
    with pytest.raises(RuntimeError, match="nobody's"):
        loop.turn(0)


# -- trio as a guest


def test_trio_sleeps_uses_threads_and_returns(clock: Clock) -> None:
    loop = Loop()
    done: list[object] = []

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        done.append(await trio.to_thread.run_sync(threading.current_thread) is not threading.main_thread())
        with trio.move_on_after(0):
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            nursery.start_soon(trio.sleep, 0.001)
        done.append("end")

    loop.run_trio(main)
    loop.close()
    assert done == [True, "end"]


def test_what_trios_main_raises_is_raised() -> None:
    loop = Loop()

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("from trio")

    with pytest.raises(KeyError, match="from trio"):
        loop.run_trio(main)
    loop.close()


def test_hot_events_are_handled_while_trio_waits(pairs: Pairs) -> None:
    loop = Loop()
    near, far = pairs()
    echoed: list[bytes] = []

    def handler(events: int) -> None:
        if events & IN:
            echoed.append(near.recv(10))
            near.send(echoed[-1])

    def ask_from_thread() -> bytes:
        far.setblocking(True)
        far.sendall(b"ping")
        return far.recv(10)

    async def main() -> None:
        loop.watch(near, handler, RecordingOwner())
        assert await trio.to_thread.run_sync(ask_from_thread) == b"ping"

    loop.run_trio(main)
    loop.close()
    assert echoed == [b"ping"]


def test_a_hot_event_can_wake_a_trio_task(pairs: Pairs) -> None:
    loop = Loop()
    near, far = pairs()
    woken = trio.Event()

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()

        def handler(events: int) -> None:
            if events & IN:
                token.run_sync_soon(woken.set)

        loop.watch(near, handler, RecordingOwner())
        far.send(b"x")
        await woken.wait()

    loop.run_trio(main)
    loop.close()


def test_a_loop_gives_its_descriptors_back() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(5):
        Loop().close()
    assert count() == before
