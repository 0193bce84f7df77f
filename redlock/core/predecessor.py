"""How the term before ours ended, as far as its successor saw it: what `lock_delay` waits for."""

from __future__ import annotations

from redlock.core.effects import NEVER
from redlock.core.quorum import Kind, Tally

__all__ = ["Predecessor"]


class Predecessor:
    """Whether who led before us gave the lock back, as far as this candidate saw it, or how long to
    wait.

    A release leaves a fence one past the token. Who saw a majority hold a token, and then a
    majority free behind fences of exactly that, knows; nobody else does, and waits *lock_delay*.
    A leader who came after one that was not seen to release may have been one for a moment only:
    so its own release counts once the delay since then is over.
    """

    __slots__ = ("_delay", "_doubt_at", "_released", "_token", "looked")

    def __init__(self, lock_delay: float) -> None:
        self._delay = lock_delay
        self.looked = False
        """Whether a majority ever answered."""
        self._token = 0
        self._released = False
        self._doubt_at = NEVER

    def saw(self, tally: Tally, now: float) -> None:
        """Note what a look said: who holds the lock, and the fences where it is free."""
        self.looked = self.looked or tally.answered >= tally.needed
        votes = [vote for vote in tally.votes if vote is not None]
        tokens = [_token(vote.holder) for vote in votes if vote.kind is Kind.BUSY]
        for token in set(tokens):
            if token != self._token and tokens.count(token) >= tally.needed:
                if not self._released:
                    self._doubt_at = now
                self._token, self._released = token, False
        if tally.free >= tally.needed:
            fences = [vote.fence for vote in votes if vote.kind is Kind.FREE]
            # A resource that nobody ever held shows no fence; nodes that forgot one do neither.
            fence = self._token + 1 if self._token else 0
            self._released = self._token >= 0 and fences.count(fence) >= tally.needed

    def led(self, token: int) -> None:
        """It was this candidate itself."""
        self._token, self._released = token, False

    def delay(self, now: float) -> float:
        """Seconds for which work may still be on its way that no token stops."""
        since = self._doubt_at if self._released else now
        return max(0.0, since + self._delay - now)


def _token(holder: str) -> int:
    """The token in what a node shows of a lock; -1 where there is none."""
    token = [*holder.split(":"), ""][1]
    return int(token) if token.isdecimal() else -1
