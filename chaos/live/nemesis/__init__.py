"""What can go wrong: each fault a small value with a start, a stop, a name, and whom it hits.

A link fault sits on cells of the proxy matrix; a node fault needs an ability of the backend; a
client fault hits a process. `World` is what they act on. Those that are over at once have nothing
to stop.
"""

from chaos.live.nemesis.base import Nemesis, World
from chaos.live.nemesis.clients import (
    Asked,
    KilledClient,
    Ordered,
    StoppedClient,
    WallClockStepped,
)
from chaos.live.nemesis.links import (
    Closed,
    Repointed,
    Toxified,
    among,
    bandwidth,
    black_hole,
    cut_before_reply,
    held_back,
    isolation,
    late_replies,
    latency,
    lost_replies,
    lost_requests,
    resets,
    slicing,
    slow_close,
)
from chaos.live.nemesis.queues import VOICELESS, Disordered, EarsCut, Queued, Voiceless, queued
from chaos.live.nemesis.repeated import Flapping, Repeated
from chaos.live.nemesis.servers import ClockMoved, Flushed, Killed, Paused, Restarted, WriteBurst
from chaos.live.nemesis.states import (
    Busy,
    ClientPaused,
    ClientsLimited,
    Configured,
    Demoted,
    Evicting,
    OutOfMemory,
    Password,
    ScriptsFlushed,
)

__all__ = [
    "VOICELESS",
    "Asked",
    "Busy",
    "ClientPaused",
    "ClientsLimited",
    "ClockMoved",
    "Closed",
    "Configured",
    "Demoted",
    "Disordered",
    "EarsCut",
    "Evicting",
    "Flapping",
    "Flushed",
    "Killed",
    "KilledClient",
    "Nemesis",
    "Ordered",
    "OutOfMemory",
    "Password",
    "Paused",
    "Queued",
    "Repeated",
    "Repointed",
    "Restarted",
    "ScriptsFlushed",
    "StoppedClient",
    "Toxified",
    "Voiceless",
    "WallClockStepped",
    "World",
    "WriteBurst",
    "among",
    "bandwidth",
    "black_hole",
    "cut_before_reply",
    "held_back",
    "isolation",
    "late_replies",
    "latency",
    "lost_replies",
    "lost_requests",
    "queued",
    "resets",
    "slicing",
    "slow_close",
]
