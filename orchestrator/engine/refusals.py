"""What a root model reads when the ledger cannot afford what a cell asks for.

Without it a refusal would be a number; a sentence says what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.engine.prompts.figures import counted


def _queries(asked: float, left: float, _count: int) -> str:
    prompts = counted(int(asked), "prompt")
    if not left:
        return f"{prompts} asked, no query left; finish with what you have"
    return f"{prompts} asked, {counted(int(left), 'query')} left; send fewer, longer prompts"


def _child_runs(asked: float, left: float, _count: int) -> str:
    runs = counted(int(asked), "child run")
    if not left:
        return f"{runs} asked, none left; use llm_query, or finish with what you have"
    return f"{runs} asked, {int(left)} left; start fewer, or use llm_query"


def _tool_calls(asked: float, left: float, _count: int) -> str:
    return f"{counted(int(asked), 'tool call')} asked, {int(left)} left; finish with what you have"


def _requests(asked: float, left: float, _count: int) -> str:
    return (
        f"{counted(int(asked), 'request')} to this model asked, {int(left)} left; ask another "
        "model, or finish with what you have"
    )


def _usd(asked: float, left: float, count: int) -> str:
    return (
        f"{counted(count, 'prompt')} could cost up to ${asked:.4f}, ${left:.4f} is left; "
        "send fewer or shorter prompts, or finish with what you have"
    )


def _tokens(kind: str) -> Callable[[float, float, int], str]:
    def sentence(asked: float, left: float, count: int) -> str:
        return (
            f"{counted(count, 'prompt')} could take up to {int(asked):,} {kind} tokens, "
            f"{int(left):,} are left; send fewer or shorter prompts, or finish with what you have"
        )

    return sentence


_SENTENCES: Mapping[str, Callable[[float, float, int], str]] = {
    "queries": _queries,
    "child_runs": _child_runs,
    "tool_calls": _tool_calls,
    "requests": _requests,
    "usd": _usd,
    "prompt_tokens": _tokens("prompt"),
    "completion_tokens": _tokens("completion"),
}


def refusal(limit: str, *, asked: float, left: float, count: int) -> str:
    """Returns why something is not affordable, and what to do.

    Args:
        limit: Which limit, as the settings call it.
        asked: How much of it is asked for.
        left: How much is left.
        count: How many prompts ask for it together.
    """
    return _SENTENCES[limit](asked, left, count)
