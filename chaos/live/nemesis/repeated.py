"""Faults made of faults: one that comes and goes, and one that strikes over and over, each in a
thread of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from chaos.live.backend import Ability
from chaos.live.nemesis.base import Nemesis, World

__all__ = ["Flapping", "Repeated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Background(Nemesis):
    """A fault that a thread of its own keeps going until it is stopped."""

    of: Nemesis
    nodes: tuple[int, ...] = field(init=False, default=())
    clients: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", self.of.nodes)
        object.__setattr__(self, "clients", self.of.clients)

    @property
    def needs(self) -> frozenset[Ability]:
        return self.of.needs

    @property
    def size(self) -> str:
        return "background"

    def start(self, world: World, fault: str) -> None:
        loop = world.kept[fault, 0] = _Loop(self, world, fault)
        loop.begin()

    def stop(self, world: World, fault: str) -> None:
        world.kept.pop((fault, 0)).end()

    def turn(self, world: World, fault: str, ending: threading.Event) -> None:
        """Once round; leaves nothing broken behind."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Flapping(_Background):
    """*of* for *on* seconds, healed for *off* seconds, over and over."""

    on: float
    off: float

    @property
    def name(self) -> str:
        return f"flapping-{self.of.name}"

    @property
    def what(self) -> str:
        return f"flapping every {self.on:g} s: {self.of.what}"

    def turn(self, world: World, fault: str, ending: threading.Event) -> None:
        self.of.start(world, fault)
        ending.wait(self.on)
        self.of.stop(world, fault)
        ending.wait(self.off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated(_Background):
    """*of*, which is momentary, every *pause* seconds."""

    pause: float

    @property
    def name(self) -> str:
        return f"repeated-{self.of.name}"

    @property
    def what(self) -> str:
        return f"every {self.pause:g} s: {self.of.what}"

    def turn(self, world: World, fault: str, ending: threading.Event) -> None:
        self.of.start(world, fault)
        ending.wait(self.pause)


class _Loop:
    def __init__(self, fault: _Background, world: World, name: str) -> None:
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(fault, world, name), name=name, daemon=True
        )

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self, fault: _Background, world: World, name: str) -> None:
        try:
            while not self._ending.is_set():
                fault.turn(world, name, self._ending)
        except BaseException as error:  # It is raised where the fault is healed.
            self._error = error
