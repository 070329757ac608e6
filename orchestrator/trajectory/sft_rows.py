"""Recorded runs as rows for supervised fine-tuning: chats as a root model saw and continued them.

Without it whoever trains on trajectories would take the harness's words for the model's.
"""

from __future__ import annotations

from itertools import groupby

from orchestrator.domain import Json
from orchestrator.trajectory.chats import turn_chats
from orchestrator.trajectory.run_labels import refuse_elided, run_labels
from orchestrator.trajectory.tree import RecordedRun


def sft_rows(run: RecordedRun) -> list[dict[str, Json]]:
    """Returns a run's chat as one row, its child runs left out.

    The messages are exactly those of the last request, and the reply to it exactly as it came. A
    run whose earlier turns were shortened on the way gives one row for each stretch in between,
    because no single chat was ever sent that holds all of it. A run without any reply of a root
    model, such as one that was answered directly, gives none.

    Raises:
        InputError: The run was recorded without texts.
    """
    refuse_elided(run)
    answered = [chat for chat in turn_chats(run) if chat.turn.reply is not None]
    segments = [list(chats) for _, chats in groupby(answered, key=lambda chat: chat.segment)]
    labels = run_labels(run)
    rows: list[dict[str, Json]] = []
    for number, chats in enumerate(segments):
        last = chats[-1]
        if last.turn.reply is None:
            continue
        messages: list[Json] = [
            {"role": message.role, "content": message.content} for message in last.sent
        ]
        messages.append({"role": "assistant", "content": last.turn.reply.reply.text})
        indexes: list[Json] = [*last.reply_indexes, len(last.sent)]
        rows.append(
            {
                "messages": messages,
                "metadata": {
                    **labels,
                    "segment": number,
                    "segment_count": len(segments),
                    "reply_indexes": indexes,
                },
            }
        )
    return rows
