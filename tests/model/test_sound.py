"""What ships, in every state within the bounds: all properties hold."""

from __future__ import annotations

import pytest

from chaos.model.catalogue import LONG, SOUND
from chaos.model.search import explore
from chaos.model.state import Configuration

# Up to ten seconds of CPU each, on a machine that may be busy with much else.
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("configuration", SOUND, ids=lambda configuration: configuration.name)
def test_every_property_holds_in_every_state(configuration: Configuration) -> None:
    """Tokens are unique and ordered without any clock; with timing there is one holder at a
    time, also through amnesia."""
    outcome = explore(configuration)
    assert outcome.complete and not outcome.trace, (
        f"{outcome.broken}: {[change.text for change in outcome.trace]}"
    )
    # Every try can be granted, beside all others.
    assert outcome.grants == sum(configuration.tries)


def test_the_bounds_reach_everything_that_is_claimed() -> None:
    """No list of configurations without a third round, a second try, a crash, an abort, and each
    way of asking."""
    for timing in (True, False):
        chosen = [bounds for bounds in SOUND if bounds.timing is timing]
        assert any(bounds.crashes for bounds in chosen)
        assert any(bounds.proposals >= 3 for bounds in chosen)
        assert any(
            "extend" in bounds.modes and "verify" in bounds.modes and bounds.questions
            for bounds in chosen
        )
    timed = [bounds for bounds in SOUND if bounds.timing]
    assert any(bounds.rounds == 3 for bounds in timed) and any(
        bounds.tries == (2, 1) for bounds in timed
    )
    assert any("shorten" in bounds.modes and bounds.questions for bounds in timed)
    assert any(bounds.aborts and bounds.questions for bounds in SOUND)
    assert all(bounds.duplicates for bounds in (*SOUND, *LONG))
