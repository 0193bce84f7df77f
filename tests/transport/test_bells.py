"""Pauses that a bell may end, in both drivers: who hears the messages of the nodes for all, and
what an interrupt leaves of that."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import CodeType, FrameType
from typing import Any

import pytest

import redlock
import redlock.asyncio
from redlock.core.effects import Flow, Wait
from redlock.core.line import Place
from redlock.embedded import Nodes
from redlock.transport import aio, blocking
from redlock.transport.aio import AsyncDriver
from redlock.transport.blocking import Driver
from tests.servers.test_one_node import overheard

PATIENCE = 20.0
LONG = 60.0
"""Seconds of a pause that only its bell ends."""


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until *holds*; for what other threads and servers do by themselves."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.002)


def pause(bell: Any, seconds: float = LONG) -> Callable[[float], Flow[float]]:
    """A flow that sleeps, and gives how long."""

    def flow(at: float) -> Flow[float]:
        event = yield Wait(at + seconds, pause=True, bell=bell)
        return event.at - at

    return flow


class Bell:
    """Rings before the sleep, or *at* the moment from which on it would be heard."""

    def __init__(self, *, rung: bool = False, at: bool = False) -> None:
        self.rung = rung
        self.at = at
        self._wake: Callable[[], object] | None = None

    @property
    def wake(self) -> Callable[[], object] | None:
        return self._wake

    @wake.setter
    def wake(self, wake: Callable[[], object] | None) -> None:
        if self.at and not self.rung:
            self.rung = True  # Whoever rang it found nobody to wake.
        self._wake = wake


def listen(locks: redlock.Redlock) -> None:
    """Until all ears hear; that a majority does wakes whoever is first in a line, once."""
    until(lambda: locks._driver.run(pause(Bell(), 0.005)) and hears(locks), "the ears")


@pytest.fixture
def locks(nodes: Nodes) -> Iterator[redlock.Redlock]:
    with redlock.Redlock(nodes.urls, ttl=60.0) as found:
        listen(found)
        yield found


def join(locks: redlock.Redlock | redlock.asyncio.Redlock, key: str) -> Place:
    place = locks._cluster.lines.join(f"redlock:{key}", 1, 0.0)
    assert place is not None
    return place


def listeners(nodes: Nodes, place: Place) -> int:
    """Tell *place*, as the release of whoever held the lock would; give how many heard that."""
    with nodes[0].client() as client:
        return int(client.publish(f"redlock:wake:{place.name.partition('.')[0]}", place.name))


def publish(nodes: Nodes, place: Place) -> None:
    assert listeners(nodes, place) == 1


def hears(locks: redlock.Redlock | redlock.asyncio.Redlock) -> bool:
    return locks._driver._hearing.count == len(locks._cluster.names)


class Sleeper(threading.Thread):
    """Waits for its place in a thread of its own."""

    def __init__(self, driver: Driver, place: Place) -> None:
        super().__init__(daemon=True)
        self.driver, self.place = driver, place
        self.error: BaseException | None = None
        self.start()
        until(lambda: place.wake is not None, "that it sleeps")

    def run(self) -> None:
        try:
            self.driver.run(pause(self.place))
        except redlock.RedlockError as error:
            self.error = error

    @property
    def reads(self) -> bool:
        """Whether it hears the messages for all."""
        return any(each.bell is self.place and each.reads for each in self.driver._sleepers)

    def ends(self) -> None:
        self.join(PATIENCE)
        assert not self.is_alive()


@pytest.mark.parametrize("how", [{"rung": True}, {"at": True}])
def test_a_bell_that_rang_before_the_sleep_ends_it(
    locks: redlock.Redlock, how: dict[str, bool]
) -> None:
    """Long before, or between the question whether it has and the sleep."""
    slept, _ = locks._driver.run(pause(Bell(**how)))
    assert slept < LONG / 2


def test_the_thread_that_listens_hands_that_on(
    locks: redlock.Redlock, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread reads for all that sleep. A message wakes whom it is for, and when the reader goes
    another one reads on."""
    monkeypatch.setattr(blocking, "_LOOK_AGAIN", LONG)  # Nobody looks up by itself.
    driver = locks._driver
    first = Sleeper(driver, join(locks, "a"))
    until(lambda: first.reads, "that it reads")
    second, third = Sleeper(driver, join(locks, "b")), Sleeper(driver, join(locks, "c"))
    assert not second.reads and not third.reads
    publish(nodes, second.place)
    second.ends()
    assert second.place.told and first.is_alive() and third.is_alive()
    publish(nodes, first.place)
    first.ends()
    until(lambda: third.reads, "that it reads on")
    publish(nodes, third.place)
    third.ends()
    assert hears(locks) and not driver._sleepers


def test_who_is_to_read_on_and_ends_at_that_moment_hands_that_on_as_well(
    locks: redlock.Redlock, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or nobody would read until somebody looks up by itself."""
    monkeypatch.setattr(blocking, "_LOOK_AGAIN", LONG)
    driver = locks._driver
    first = Sleeper(driver, join(locks, "a"))
    until(lambda: first.reads, "that it reads")
    others = [Sleeper(driver, join(locks, key)) for key in "bc"]
    asked = next(each.bell for each in list(driver._sleepers) if each.bell is not first.place)
    others.sort(key=lambda each: each.place is not asked)
    others[0].place.rung = True  # And nobody woke it yet.
    publish(nodes, first.place)
    first.ends()
    others[0].ends()
    until(lambda: others[1].reads, "that it reads on")
    publish(nodes, others[1].place)
    others[1].ends()


def test_a_close_ends_the_sleep_of_all(locks: redlock.Redlock, nodes: Nodes) -> None:
    """Of the one that reads too, and the ears are closed."""
    sleepers = [Sleeper(locks._driver, join(locks, key)) for key in "ab"]
    locks.close()
    for sleeper in sleepers:
        sleeper.ends()
        assert isinstance(sleeper.error, redlock.RedlockError)
    until(lambda: not listeners(nodes, sleepers[0].place), "that they are closed")


def test_a_close_waits_for_the_last_word_of_who_slept(locks: redlock.Redlock, nodes: Nodes) -> None:
    """Though every set is in other hands at that moment: a place that is left behind stands in
    everybody's way until it expires."""
    driver, queue = locks._driver, "redlock:a:lock-queue"
    with (
        redlock.Redlock(nodes.urls) as others,
        nodes[0].client() as client,
        others.lock("a"),
        overheard(nodes[0]) as heard,
    ):
        ended: list[bool] = []
        waits = threading.Thread(target=lambda: ended.append(_closed(locks, "a")), daemon=True)
        waits.start()
        until(lambda: client.zcard(queue), "its place")
        until(lambda: driver._sleepers and len(driver._idle) == len(driver._shared), "its sleep")
        taken = [driver._idle.pop() for _ in range(len(driver._idle))]
        closes = threading.Thread(target=locks.close, daemon=True)
        closes.start()
        until(lambda: not driver._sleepers, "that it wakes")
        time.sleep(0.01)
        for each in taken:
            driver._check_in(each)
        for thread in (waits, closes):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert ended == [True]
        until(lambda: not client.zcard(queue), "its end")
    said = [each["command"] for each in heard if each["client_type"] == "tcp"]
    assert any(word.startswith("EVAL -- LEAVE: ") for word in said), "it did not just expire"


def _closed(locks: redlock.Redlock, name: str) -> bool:
    try:
        locks.lock(name).acquire()
    except redlock.RedlockError:
        return True
    return False


class Striker:
    """Ctrl-C at the *at*-th line that this thread executes in what sleeps and listens, or in
    *where*."""

    def __init__(self, at: int, *where: Callable[..., Any]) -> None:
        self.left = at
        places = where or (Driver._sleep, Driver._listen, Driver._take_ears)
        self.codes: set[CodeType] = {each.__code__ for each in places}

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code not in self.codes:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def runs(self, what: Callable[[], object]) -> bool:
        """Whether it struck."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            what()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


def test_ctrl_c_at_any_line_of_a_sleep_leaves_the_ears_usable(
    locks: redlock.Redlock, nodes: Nodes
) -> None:
    """With the reading in other hands, or gone: the next one who sleeps is told as ever."""
    driver = locks._driver
    at = 0
    struck = True
    while struck:
        at += 1
        place = join(locks, f"{at}")
        struck = Striker(at).runs(lambda place=place: driver.run(pause(place, 0.003)))  # type: ignore[misc]
        place.wake = None
        listen(locks)
        after = Sleeper(driver, join(locks, f"{at} after"))
        publish(nodes, after.place)
        after.ends()
    assert at > 20


def test_a_task_sleeps_until_its_bell_rings(nodes: Nodes) -> None:
    """Before, at and in its sleep, by a message of a node; and a close ends it."""

    async def run() -> None:
        async with redlock.asyncio.Redlock(nodes.urls, ttl=60.0) as locks:
            driver = locks._driver
            for bell in (Bell(rung=True), Bell(at=True)):
                assert await asyncio.wait_for(driver.run(pause(bell)), PATIENCE) < LONG / 2
            async with asyncio.timeout(PATIENCE):
                while not hears(locks):
                    await driver.run(pause(Bell(), 0.005))
            first, second = join(locks, "a"), join(locks, "b")
            tasks = [asyncio.create_task(driver.run(pause(place))) for place in (first, second)]
            async with asyncio.timeout(PATIENCE):
                await asyncio.to_thread(publish, nodes, second)
                await tasks[1]
            assert second.told and not tasks[0].done()
            driver.refuse()
            with pytest.raises(redlock.RedlockError, match="closed"):
                await asyncio.wait_for(tasks[0], PATIENCE)

    asyncio.run(run())


def test_a_pause_that_ends_by_its_bell_and_by_its_time_ends_once(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others have their turn, both may come; the next pause is as long as it should be, and
    every turn that was taken is given back."""

    def twice(bell: Any) -> Callable[[float], Flow[float]]:
        def flow(at: float) -> Flow[float]:
            event = yield Wait(at + 0.01, pause=True, bell=bell)
            woken = event.at
            event = yield Wait(woken + 0.05, pause=True)
            return event.at - woken

        return flow

    async def run() -> None:
        async with redlock.asyncio.Redlock(nodes.urls, ttl=60.0) as locks:
            driver, bell = locks._driver, Bell()
            task = asyncio.create_task(driver.run(twice(bell)))
            await asyncio.sleep(0)
            with monkeypatch.context() as patch:
                patch.setattr(aio, "FLOWS_MAX", 0)
                assert bell.wake is not None
                bell.wake()
                await asyncio.sleep(0.02)
            assert len(driver._queue) == 2
            driver._admit()
            assert await asyncio.wait_for(task, PATIENCE) >= 0.05
            assert not driver._rounds and not driver._queue

    asyncio.run(run())


def test_ctrl_c_at_any_line_of_a_wake_up_leaves_a_pause_that_ends_by_its_time(nodes: Nodes) -> None:
    """The wake-up may be lost, and nobody else's; the turns are given back."""
    where = AsyncDriver._answer_bells, AsyncDriver.queue_again, AsyncDriver._resume

    def paused(driver: AsyncDriver, bell: Bell) -> Coroutine[Any, Any, float]:
        return driver.run(pause(bell, 0.05))

    at, struck = 0, True
    with asyncio.Runner() as runner:
        locks = redlock.asyncio.Redlock(nodes.urls, ttl=60.0)
        driver = locks._driver
        runner.run(paused(driver, Bell()))
        while struck:
            at += 1
            bell = Bell()
            task = runner.get_loop().create_task(paused(driver, bell))
            runner.run(asyncio.sleep(0))
            assert bell.wake is not None
            bell.wake()
            wait = partial(runner.get_loop().run_until_complete, task)
            struck = Striker(at, *where).runs(wait)
            runner.run(asyncio.wait_for(task, PATIENCE))
            assert runner.run(asyncio.wait_for(paused(driver, Bell(rung=True)), PATIENCE)) < 0.05
            assert not driver._rounds and not driver._queue
        runner.run(locks.close())
    assert at > 8
