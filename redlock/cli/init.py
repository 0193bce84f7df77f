"""`redlock init`: mark the nodes of a new cluster, or of an old one anew."""

from __future__ import annotations

from collections.abc import Sequence

import click

from redlock.cli.options import JSON_OPTION, NODE_OPTION, SECONDS, nodes_of
from redlock.cli.screen import Listing, new_console, print_json
from redlock.cli.waiting import patience
from redlock.core.identity import Marker
from redlock.initialise import initialise
from redlock.supervise import OK
from redlock.transport.dial import endpoints

_STATUSES = """\b
Exit status:
  0  all nodes are marked
  2  usage or configuration; refused, as a lock lives or the nodes are marked already
  5  a node did not answer
"""


@click.command(epilog=_STATUSES, short_help="Mark the nodes of a new cluster.")
@NODE_OPTION
@click.option(
    "--max-ttl", type=SECONDS, help="Longest ttl in seconds that anybody may ask for. Default: 60."
)
@click.option(
    "--durable",
    is_flag=True,
    help="The nodes run appendfsync always: a restart costs no quarantine.",
)
@click.option(
    "--never-replicas",
    is_flag=True,
    help=(
        "No node is ever made a replica: a backup of a node, which changes its replication id,"
        " costs nothing then. Can be promised later too."
    ),
)
@click.option("--cluster", metavar="ID", help="An id that keeps clients with other node lists out.")
@click.option(
    "--replace", is_flag=True, help="Mark a marked cluster anew; refused while any lock lives."
)
@JSON_OPTION
def init(
    urls: tuple[str, ...],
    max_ttl: float | None,
    durable: bool,
    never_replicas: bool,
    cluster: str | None,
    replace: bool,
    as_json: bool,
) -> int:
    """Mark the nodes of a new cluster, so that it grants locks at once. All of them must answer.

    On a cluster that is marked already, a larger --max-ttl raises it, and --never-replicas promises
    that from now on. Run it again if it broke off.
    """
    names = nodes_of(urls)
    with patience("waiting for every node to answer, some seconds for each"):
        made = initialise(
            names,
            max_ttl=max_ttl,
            durable=durable,
            never_replicas=never_replicas,
            cluster=cluster,
            replace=replace,
        )
    return _show([endpoint.name for endpoint in endpoints(names)], made, as_json=as_json)


def _show(names: Sequence[str], made: Sequence[Marker], *, as_json: bool) -> int:
    first = made[0]
    cluster = None if first.cluster == "-" else first.cluster
    if as_json:
        marked = [
            {"node": name, "run_id": marker.memory.run_id, "memory": marker.memory.replication_id}
            for name, marker in zip(names, made, strict=True)
        ]
        promised = {
            "max_ttl": first.max_ttl,
            "durable": first.durable,
            "never_replicas": first.never_replicas,
        }
        print_json({"nodes": marked, **promised, "cluster": cluster})
        return OK
    console = new_console()
    table = Listing("node", "run id", "memory")
    for name, marker in zip(names, made, strict=True):
        table.add(name, marker.memory.run_id[:8], marker.memory.replication_id[:8])
    table.print(console)
    promises = f"max ttl {first.max_ttl:g} s, {'durable' if first.durable else 'not durable'}"
    promises += ", never replicas" if first.never_replicas else ""
    console.print(
        f"{len(made)} nodes marked: {promises}" + (f", cluster {cluster}" if cluster else ""),
        style="bold",
    )
    return OK
