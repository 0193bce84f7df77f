"""The world of memories: every state in which a node forgets, is copied, comes back or is founded,
and who may then vote.

*What is modelled.* Three nodes, of which the first may lose its memory: flushed, restarted with any
text that it ever had, made a replica and promoted, dead while a replica answers under its name, its
name led to another server and back, its keys swapped and swapped back, or backed up without any
loss. Each client looks at a node by one step, and what it knows may then be as old as it likes. A
MARK and the TAKEs to the first node are on their way from the moment at which their client may send
them; they are executed at any later step, any number of times or never. Whether a blank is put over
a marker that was found lost, or one waits alone, is left open. Fresh clients know nothing, and
forget all after each try. An operator raises max_ttl, or replaces all markers after a drain. With
tokens, any small number may be proposed; clocks then go on as they like, and that of a node which
has restarted may be behind.

*Time* has no numbers but these. A wait of some ttl ends when the tries of up to that ttl that began
before it are over, which is what equal clock rates warrant; a lock lasts as long as its owner's
try, for more of it would only keep others out.

*The properties*: ME, at most one holder is valid. M, a try that started after a grant gets a larger
token. U, no two grants share a token. The return of an older memory is promised against for clients
that never met the newer one: there it comes back only when all have.

*What is not modelled*: extensions and further rounds (the other model's matter), eviction, which no
script can see, more than one node that forgets, more than one clock that is wrong, `durable`, and
markers of earlier formats.

Where a cluster is founded or max_ttl is raised, the first client looks at no node but the first
one, in all worlds but one. The lease clocks of all run alike.

*What is left out because it cannot matter*: the order of clients that are alike, votes of the third
node for the first client and of the second node for the second one, and when the others of nodes
that remember are given; a loss of memory that loses no lock where there are no tokens, requests
that can do nothing any more, and states from which no property can break. A test explores without
these and finds the same.
"""
