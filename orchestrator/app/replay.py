"""Models that say again what a trajectory has recorded: `--model replay:FILE`.

Without it nothing would join the two parts that know of it: one reads trajectories, the other is
asked as a model is.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

from orchestrator.models.replayed import ReplayedModel
from orchestrator.trajectory.replay import Recording, read_recording

#: Begins the name of such a model.
REPLAY: str = "replay:"


def replayed_model(spec: str, role: Literal["root", "sub"]) -> ReplayedModel:
    """Returns a model of a recorded run.

    Args:
        spec: `replay:FILE`, of a trajectory with its texts.
        role: Whether it writes the cells of the run itself; else it answers queries, and writes
            the cells of child runs.

    Raises:
        InputError: The file cannot be read, has no run in it, or was recorded without texts.
    """
    recording = recording_of_spec(spec)
    if role == "root":
        return ReplayedModel(name=f"{REPLAY}{recording.root_model}", chats=recording.root_chats)
    return ReplayedModel(
        name=f"{REPLAY}{recording.sub_model}",
        chats=recording.child_chats,
        prompts=recording.queries,
    )


@functools.lru_cache(maxsize=1)
def recording_of_spec(spec: str) -> Recording:
    """Returns the recording that a name stands for; root model and sub-model share it.

    Raises:
        InputError: The file cannot be read, has no run in it, or was recorded without texts.
    """
    return read_recording(Path(spec.removeprefix(REPLAY)).expanduser())
