"""Removes sandbox images that nothing needs any more.

Every change of the worker's code makes another image of 70 MB. Removing them by hand means telling
them from somebody's own image, from one that a sandbox still runs from, and from one that was
derived from ours.
"""

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image import INPUTS_LABEL, REPOSITORY, ImageRecord, list_records
from orchestrator.sandbox.image_inputs import read_inputs
from orchestrator.sandbox.image_store import ImageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldImage:
    """One image with this project's label, and what bears on whether it may go."""

    record: ImageRecord
    tags: tuple[str, ...]
    step_count: int  # ours are made in one
    is_used: bool  # by a container, running or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is done with one image, and why."""

    record: ImageRecord
    is_removed: bool
    reason: str


def plan_prune(images: Collection[HeldImage], *, in_use: str | None) -> tuple[Verdict, ...]:
    """Returns what to do with each image.

    Args:
        images: Every image with this project's label.
        in_use: Id of the one that sandboxes are started from, if the engine has it.
    """
    return tuple(_judge(image, in_use=in_use) for image in images)


def _judge(image: HeldImage, *, in_use: str | None) -> Verdict:
    foreign = [tag for tag in image.tags if tag.partition(":")[0] != REPOSITORY]
    reasons = {
        "sandboxes of this installation are started from it": image.record.image_id == in_use,
        "a container is made from it": image.is_used,
        "it was derived from a sandbox image and is somebody's own": image.step_count != 1,
        f"somebody named it {', '.join(foreign)}": bool(foreign),
    }
    kept = next((reason for reason, holds in reasons.items() if holds), None)
    return Verdict(record=image.record, is_removed=kept is None, reason=kept or "superseded")


def look_at_images(store: ImageStore, records: Collection[ImageRecord]) -> tuple[HeldImage, ...]:
    """Returns what bears on whether the images of `records` may be removed."""
    used = store.list_used()
    return tuple(
        HeldImage(
            record=record,
            tags=tuple(store.inspect(record.image_id).get("RepoTags") or ()),
            step_count=store.count_steps(record.image_id),
            is_used=record.image_id in used,
        )
        for record in records
    )


def carry_out(store: ImageStore, verdicts: Collection[Verdict]) -> None:
    """Removes the images that the verdicts say.

    Raises:
        SandboxStartError: The engine refused, for instance because a container was made from one
            in the meantime. Those before it are gone; asking again goes on with the rest.
    """
    for verdict in verdicts:
        if verdict.is_removed:
            store.remove(verdict.record.image_id)


def prune_images(engine: EngineInfo, *, is_dry: bool) -> tuple[Verdict, ...]:
    """Removes the sandbox images of this engine that are superseded, and no other image.

    Args:
        engine: Has the images.
        is_dry: Says what would be done and does nothing.

    Returns:
        What was done with each image of this project.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The engine did not answer, or refused.
    """
    with ImageStore(engine.endpoint) as store:
        records = list_records(store, label=INPUTS_LABEL, current=read_inputs().digest())
        in_use = next((record.image_id for record in records if record.is_current), None)
        verdicts = plan_prune(look_at_images(store, records), in_use=in_use)
        if not is_dry:
            carry_out(store, verdicts)
        return verdicts
