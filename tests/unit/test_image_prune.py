"""Which images may be removed: ours, superseded, and nobody's."""

from dataclasses import replace

import pytest

from orchestrator.sandbox.image import ImageRecord
from orchestrator.sandbox.image_prune import HeldImage, plan_prune

RECORD = ImageRecord(
    reference="sha256:0",
    image_id="sha256:0",
    inputs_sha256="0",
    release="0.1.0",
    packages="pinned",
    size_bytes=1,
    created="2026-01-01T00:00:00Z",
    is_current=False,
    is_named=False,
)
SUPERSEDED = HeldImage(record=RECORD, tags=(), step_count=1, is_used=False)


def test_superseded_image_is_removed() -> None:
    """An image of ours that nothing needs goes; the control of what is kept."""
    [verdict] = plan_prune([SUPERSEDED], in_use="sha256:1")

    assert verdict.is_removed
    assert verdict.reason == "superseded"


def test_superseded_image_with_our_name_is_removed() -> None:
    """Our own name on an image of an earlier release does not keep it."""
    [verdict] = plan_prune([replace(SUPERSEDED, tags=("rlm-sandbox:0.0.9",))], in_use=None)

    assert verdict.is_removed


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (replace(SUPERSEDED, is_used=True), "a container is made from it"),
        (replace(SUPERSEDED, step_count=2), "derived"),
        (replace(SUPERSEDED, tags=("registry.example/rlm-sandbox:0.1.0",)), "registry.example"),
        (replace(SUPERSEDED, tags=("rlm-sandbox:0.1.0", "keep:this")), "keep:this"),
    ],
)
def test_image_that_somebody_needs_is_kept(image: HeldImage, reason: str) -> None:
    """One that is used, derived, or named by somebody stays, and the verdict says why."""
    [verdict] = plan_prune([image], in_use=None)

    assert not verdict.is_removed
    assert reason in verdict.reason


def test_image_in_use_is_kept() -> None:
    """The image that the next sandbox starts from stays."""
    [verdict] = plan_prune([SUPERSEDED], in_use=RECORD.image_id)

    assert not verdict.is_removed
