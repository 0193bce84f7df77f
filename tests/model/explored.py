"""Outcomes that several test modules look at; each configuration is explored once."""

from __future__ import annotations

from functools import cache

from chaos.model.memory.state import Memories
from chaos.model.search import Outcome, explore
from chaos.model.state import Configuration

__all__ = ["explored"]


@cache
def explored(bounds: Configuration | Memories) -> Outcome:
    """What the search finds within these bounds."""
    return explore(bounds)
