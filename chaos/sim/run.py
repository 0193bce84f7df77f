"""One history from one seed."""

from __future__ import annotations

from chaos.sim.plan import draw
from chaos.sim.stage import Outcome, play

__all__ = ["Outcome", "simulate"]


def simulate(seed: int, workload: str, mode: str = "plain") -> Outcome:
    """Run *workload* in the world of *seed*: the same history every time, on any machine."""
    return play(draw(seed, workload, mode))
