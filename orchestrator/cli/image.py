"""`rlm image`: the images sandboxes are started from."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.app.host import (
    build_host_image,
    list_host_images,
    prune_host_images,
    read_host_bill_of_materials,
    verify_host_image,
)
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import DEFAULTS, default_is, read_settings
from orchestrator.cli.progress import say
from orchestrator.sandbox.image import ImageRecord, PackageChoice
from orchestrator.sandbox.image_making import BuildWay

command = new_command()

_DIFFERENCES_SHOWN = 20

WayOption = Annotated[
    BuildWay | None,
    typer.Option(
        help="With this host's apt, or in a container whose Debian comes from a registry.",
        show_default="what the host has",
    ),
]


@command.callback()
def image() -> None:
    """Build, list, verify and prune sandbox images."""


@command.command("build")
def build(
    ctx: typer.Context,
    way: WayOption = None,
    packages: Annotated[
        PackageChoice | None,
        typer.Option(
            help="Which Debian packages: those this release pins, or what the archive has now. "
            f"{default_is(DEFAULTS.debian_packages)}",
        ),
    ] = None,
    force: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool, typer.Option("--force", help="Build even if there is one.")
    ] = False,
) -> None:
    """Build the image of the installed code.

    Does nothing where the engine has it, unless told to with --force or --packages newest.
    """
    settings = read_settings(ctx, {"debian_packages": packages and packages.value})
    is_forced = force or packages is PackageChoice.NEWEST
    record = build_host_image(settings, say, way=way, is_forced=is_forced)
    sys.stdout.write(f"{record.reference} {record.image_id} ({record.packages} packages)\n")
    others = [held for held in list_host_images(settings) if held.image_id != record.image_id]
    if others:
        size_mib = sum(held.size_bytes for held in others) / 2**20
        say(
            f"The engine holds {len(others)} other sandbox images, {size_mib:.0f} MiB. "
            "`rlm image prune` removes those that nothing needs."
        )


@command.command("ls")
def list_images(
    ctx: typer.Context,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """List the engine's sandbox images.

    Those made from the installed code come first and have a *; the first of them is in use. The
    date is that of the Debian packages in it.
    """
    records = list_host_images(read_settings(ctx))
    if as_json:
        sys.stdout.write(f"{json.dumps([asdict(record) for record in records])}\n")
        return
    for record in records:
        sys.stdout.write(f"{'*' if record.is_current else ' '} {_line(record)}\n")
    if not records:
        say("The engine has no sandbox image. `rlm image build` makes one.")


@command.command("verify")
def verify(
    ctx: typer.Context,
    way: WayOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """Build the image in use again and compare the two, to the bit.

    Exits with 1 where they differ, and names each file that does.
    """
    found = verify_host_image(read_settings(ctx), say, way=way)
    if as_json:
        sys.stdout.write(f"{json.dumps({**asdict(found), 'is_same': found.is_same})}\n")
    else:
        sys.stdout.write(
            f"in use:      {found.image.image_id} ({found.image.packages} packages)\n"
            f"built again: {found.rebuilt_id} (manifest {found.rebuilt_manifest})\n"
            f"{'the same' if found.is_same else 'NOT the same'}\n"
        )
        for difference in found.differences[:_DIFFERENCES_SHOWN]:
            sys.stdout.write(f"  {difference}\n")
        if (more := len(found.differences) - _DIFFERENCES_SHOWN) > 0:
            sys.stdout.write(f"  and {more} more; --json has them all\n")
    if not found.is_same:
        raise typer.Exit(ExitCode.FAILED)


@command.command("sbom")
def sbom(ctx: typer.Context) -> None:
    """Print the bill of materials (CycloneDX, JSON) of the image in use."""
    sys.stdout.write(read_host_bill_of_materials(read_settings(ctx)))


@command.command("prune")
def prune(
    ctx: typer.Context,
    dry_run: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - likewise
) -> None:
    """Remove sandbox images that are superseded, and no other image.

    Kept are the one in use, any that a container is made from, any that was derived from a sandbox
    image, and any that somebody named.
    """
    verdicts = prune_host_images(read_settings(ctx), is_dry=dry_run)
    if as_json:
        sys.stdout.write(f"{json.dumps([asdict(verdict) for verdict in verdicts])}\n")
        return
    done = "would be removed" if dry_run else "removed"
    for verdict in verdicts:
        fate = done if verdict.is_removed else "kept"
        sys.stdout.write(f"{fate}: {_line(verdict.record)}: {verdict.reason}\n")
    if not verdicts:
        say("The engine has no sandbox image.")


def _line(record: ImageRecord) -> str:
    name = record.reference if record.reference != record.image_id else "(no name)"
    return (
        f"{name}  {record.image_id[:19]}  {record.size_bytes / 2**20:.0f} MiB  "
        f"{record.created[:10]}  {record.packages or 'unknown'} packages"
    )
