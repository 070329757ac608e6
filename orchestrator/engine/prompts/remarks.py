"""What the engine itself says to a root model in the course of a run.

Without it a model that left the protocol would get silence back, and would leave it again.
"""

from __future__ import annotations

from orchestrator.engine.parsing import ParsedReply
from orchestrator.engine.prompts.figures import counted, duration

_EXAMPLE = "```repl\n# Python\n```"

#: Said before the last turn, however brief a profile is.
LAST_TURN = "The next turn is the last: make your best answer final in it."
#: Said when a cell called its answer final and there was none.
EMPTY_ANSWER = (
    "The answer was called final, but its text is empty, so the run goes on. Put the answer into "
    '`answer["content"]` first; if there is nothing to be found, say so there.'
)


def repair(reply: ParsedReply, *, is_brief: bool) -> str:
    """Returns why nothing of a reply ran, and what to do about it.

    A brief one holds no example: small models send it back as their next reply.
    """
    if reply.was_cut:
        reason = (
            "Your reply was cut off at its length limit before a block was complete, so nothing "
            "ran. Write less, and one short block."
        )
    elif reply.has_open_fence:
        reason = (
            "Your block was not closed and is not complete Python, so nothing ran. Write it again, "
            "whole, and end it with a line of three backticks."
        )
    elif reply.foreign_labels:
        labels = ", ".join(f"`{label[:20]}`" for label in reply.foreign_labels[:3])
        reason = f"Nothing ran: blocks labelled {labels} are not run. Label Python `repl`."
    elif reply.has_unlabelled_fence:
        reason = "Nothing ran: your block has no label and does nothing as Python."
    else:
        reason = "Your reply holds no block of code, so nothing ran."
    if is_brief:
        return f"{reason} Reply with exactly one ```repl block of Python and nothing else."
    return (
        f"{reason} Reply with a block like this:\n{_EXAMPLE}\n"
        "To end the run, call FINAL(your_answer) inside such a block; in prose it does not count."
    )


def repetition(turn: int) -> str:
    """Returns what is said when a reply ran what an earlier one ran, and came to the same."""
    return (
        f"You ran exactly this in turn {turn} already, and it printed the same. Running it again "
        "will not help: use what it printed, try something else, or make the answer final."
    )


def repeated_queries(repeated_count: int, asked_count: int) -> str:
    """Returns what is said when a turn asked mostly what had been asked before."""
    return (
        f"{repeated_count} of the {counted(asked_count, 'prompt')} of this turn had been asked "
        "before, and got the same answers again, at no cost. They will not change: use them, or "
        "make the answer final."
    )


def verifying(turn_count: int) -> str:
    """Returns what is said when a draft has stood unchanged for some turns."""
    return (
        f'`answer["content"]` has not changed for {counted(turn_count, "turn")}. If you have '
        "checked it once, make it final; checking again costs and seldom helps."
    )


def status(
    *, left_turn_count: int, left_query_count: int, left_s: float, left_usd: float | None = None
) -> str:
    """Returns what is left of the run."""
    money = "" if left_usd is None else f" ${left_usd:.2f},"
    left = (
        f"Left: {counted(left_turn_count, 'turn')}, {counted(left_query_count, 'query')},{money} "
        f"{duration(left_s)}."
    )
    return f"{left} {LAST_TURN}" if left_turn_count == 1 else left


def last_request(limit: str) -> str:
    """Returns the request for a best answer when a limit has been reached."""
    return (
        f"The run has reached its limit of {limit}. No more code is run. Reply with the best "
        "answer you can give from what you have seen: the answer alone, as plain text, without "
        "code."
    )
