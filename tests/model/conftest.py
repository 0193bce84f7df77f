"""The searches of the model in one process: millions of states, and no circle among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def without_the_collector() -> Iterator[None]:
    """It takes a tenth of the time, to look at every state again and again."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()
