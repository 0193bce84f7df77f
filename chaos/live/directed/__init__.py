"""Scripts that need an order of events: each breaks, waits for what must follow, and claims.

Clients that a script leads step by step are puppets. What decides is always an event: a grant, a
refusal, a key that is there. Where a script waits for time alone, that is how long its fault lasts.
"""

from chaos.live.directed.controls import incr_token, non_strict, top_up, top_up_refused, unclaimed
from chaos.live.directed.holders import (
    blocked_loop,
    check_and_stop,
    fork,
    killed_holder,
    max_hold,
    stopped_holder,
    suspend,
)
from chaos.live.directed.late import late_release, late_requests, reply_cut, stale_replies
from chaos.live.directed.memory import (
    amnesia,
    evicted,
    flushed_majority,
    quarantined_crowd,
    rolling,
    unfit,
    wiped,
)
from chaos.live.directed.partitions import holder_loses, isolated_leader, seen_by_nobody, two_pauses
from chaos.live.directed.servers import (
    cancels,
    clock_jump_on_a_majority,
    clock_jump_on_a_minority,
    duplicate_node,
    injections,
    moved_address,
    other_list,
    out_of_memory,
    strobe,
    wrong_password,
)
from chaos.live.directed.shortages import dead_dials, dead_renewal, no_descriptors, no_threads

__all__ = [
    "amnesia",
    "blocked_loop",
    "cancels",
    "check_and_stop",
    "clock_jump_on_a_majority",
    "clock_jump_on_a_minority",
    "dead_dials",
    "dead_renewal",
    "duplicate_node",
    "evicted",
    "flushed_majority",
    "fork",
    "holder_loses",
    "incr_token",
    "injections",
    "isolated_leader",
    "killed_holder",
    "late_release",
    "late_requests",
    "max_hold",
    "moved_address",
    "no_descriptors",
    "no_threads",
    "non_strict",
    "other_list",
    "out_of_memory",
    "quarantined_crowd",
    "reply_cut",
    "rolling",
    "seen_by_nobody",
    "stale_replies",
    "stopped_holder",
    "strobe",
    "suspend",
    "top_up",
    "top_up_refused",
    "two_pauses",
    "unclaimed",
    "unfit",
    "wiped",
    "wrong_password",
]
