"""The exhaustive model of the ballot lock: every state of a small world, so that what holds in it
holds for every schedule.

*What is modelled.* Three nodes; two clients with one try each, and worlds where a client tries
twice or a third one takes part. A try has up to three rounds, as in `acquire.py`. One script is one
atomic step, and `protocol.py` has the scripts line by line (`tests/servers/test_model_protocol.py`
holds them to the shipped Lua, `tests/model/test_flows.py` the decisions to the shipped flows). A
request goes out to every node at once; from then on it may be executed at any later step or never,
in any order, and any number of times: delayed, lost, reordered and duplicated requests. An answer
may be heard at any later moment or never: a client decides on any subset of the answers there are.
A first token is any small number, whatever others propose: client clocks may be wrong in any way. A
holder may extend, by more or by less than it has, and verify; it goes on asking after a question
nobody answered. A node may crash and forget everything, and a script may break off between its two
writes.

*Time* has two forms. Without timing any lock may vanish at any step: no clock anywhere means
anything. With timing a lock vanishes only after the validity of its owner's round or extension has
ended on the owner's own timeline, and a grant or a confirmation precedes that end: what Redlock
assumes of clocks, of delays and of pauses. A lock may always live longer.

*A quarantine* ends when the validity of all rounds and extensions that began before the crash is
over; then the node votes again under a floor: any that is not below the fence it lost, which is
what the clamp on tokens warrants of the real floor. What had been sent to it before names another
marker and is refused; releases are not.

*The queue* of those who wait is arbitrary input: a node may say of any claim to a free lock, at any
step, that it is somebody else's turn, which changes nothing there.

*The properties*: U, no two grants share a token. M, a try that started after a grant was decided
gets a larger token. D, grants are decided in the order of their tokens. ME, at most one holder is
valid. X, a holder whose extension or VERIFY was confirmed by a majority was the newest when it
asked.

*What is not modelled*: more than one question of a holder at a time; the clamp against tokens too
far ahead and the expiry of fences, both far away from what the model's small numbers mean; nodes
with different lists of nodes; a snapshot that brings back an old lock. Admission and markers are a
world of their own, in `memory/`, where a ballot is no more than a lock and a token on each node.
The simulator (`chaos/sim`) covers what of the rest the shipped code does.

*What is left out because it cannot matter*, each time with its reason in the code: the order of the
nodes, the order in which clients that may do the same start, requests that can do nothing any more,
and states from which no property can break. A test explores without these and finds the same
verdicts.
"""
