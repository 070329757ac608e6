"""Figures of many runs: what is usual, and what the tail is.

Without it an operator would know what runs cost on average, which is not what hurts: recursive runs
have a median below that of a plain call and a tail several times above it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.domain import RunId
from orchestrator.trajectory.efficiency import efficiency_of
from orchestrator.trajectory.spending import elapsed_s, run_money, usage_by_model
from orchestrator.trajectory.tree import RecordedRun

#: What stands for the finish reason of a run whose end is not recorded.
CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """One run of a caller's, with its child runs, in figures. None: not known.

    Attributes:
        file: The trajectory it is in.
        finish_reason: `cut_off` where the end is not recorded.
        question: As recorded; a digest where texts are not.
        cost_usd: None where something has no known price.
        tokens: Prompt and completion, of all models.
        sent_share: The most of the context that sub-models of the run itself can have read, 0 to 1.
        repeated_queries: Prompts that had been answered before, child runs' included.
        notices: How often a root model was told that it goes round in circles; likewise.
        one_prompt_ratio: Cost against that of the whole context in one prompt to the root model.
    """

    file: str
    run_id: RunId
    question: str
    root_model: str
    profile: str
    is_scripted: bool
    finish_reason: str
    cost_usd: float | None
    wall_s: float | None
    turns: int
    queries: int
    child_runs: int
    tokens: int
    sent_share: float | None
    repeated_queries: int
    notices: int
    one_prompt_ratio: float | None


#: The figures that a distribution is made of, in the order in which they are shown.
MEASURES = (
    "cost_usd",
    "wall_s",
    "turns",
    "queries",
    "child_runs",
    "tokens",
    "sent_share",
    "repeated_queries",
    "notices",
    "one_prompt_ratio",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One figure over many runs.

    Attributes:
        known_count: Runs for which it is known.
        total: Of those, as are the others.
    """

    known_count: int
    total: float
    median: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFigures:
    """Some runs together.

    Attributes:
        name: What they have in common; empty for all.
        finish_reasons: How many ended by which, most frequent first.
        distributions: By measure; those that are known of no run are left out.
    """

    name: str
    run_count: int
    finish_reasons: Mapping[str, int]
    distributions: Mapping[str, Distribution]


def figures_of(run: RecordedRun, *, file: str) -> RunFigures:
    """Returns the figures of one run."""
    started, ended, own = run.started, run.ended, efficiency_of(run)
    everybody = list(run.walk())
    efficiencies = [efficiency_of(each) for each in everybody]
    money = run_money(run)
    cost_usd = None if money.has_unpriced else money.usd
    one_prompt_usd = own.one_prompt_usd
    return RunFigures(
        file=file,
        run_id=started.run_id,
        question=started.question,
        root_model=started.root_model,
        profile=started.profile,
        is_scripted=started.is_scripted,
        finish_reason=CUT_OFF if ended is None else ended.finish_reason.value,
        cost_usd=cost_usd,
        wall_s=elapsed_s(run),
        turns=len([turn for turn in run.turns if turn.reply is not None]),
        queries=sum(each.sent_query_count for each in efficiencies),
        child_runs=len(everybody) - 1,
        tokens=sum(
            usage.prompt_tokens + usage.completion_tokens for usage in usage_by_model(run).values()
        ),
        sent_share=own.sent_share if own.context_chars else None,
        repeated_queries=sum(each.repeated_query_count for each in efficiencies),
        notices=sum(each.notice_count for each in efficiencies),
        one_prompt_ratio=cost_usd / one_prompt_usd
        if cost_usd is not None and one_prompt_usd
        else None,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns a percentile by the nearest-rank method: the value of a run that really happened.

    It is the smallest value that at least `percent` in a hundred of all values do not exceed. Of
    three runs the 95th percentile is the largest, and the median of two is the smaller one.

    Args:
        values: At least one, in any order.
        percent: Above 0, at most 100.
    """
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def distribution(values: Iterable[float | None]) -> Distribution | None:
    """Returns how a figure is distributed, or None where it is known of no run."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Distribution(
        known_count=len(known),
        total=sum(known),
        median=percentile(known, 50),
        p95=percentile(known, 95),
        max=max(known),
    )


def group_figures(name: str, runs: Sequence[RunFigures]) -> GroupFigures:
    """Returns the figures of some runs together."""
    reasons = Counter(run.finish_reason for run in runs)
    found = {measure: distribution(getattr(run, measure) for run in runs) for measure in MEASURES}
    return GroupFigures(
        name=name,
        run_count=len(runs),
        finish_reasons=dict(reasons.most_common()),
        distributions={measure: each for measure, each in found.items() if each is not None},
    )


def most_expensive(runs: Sequence[RunFigures], *, count: int) -> tuple[RunFigures, ...]:
    """Returns the runs that cost most, the first first; by tokens where prices are not known."""
    return tuple(
        sorted(runs, key=lambda run: (run.cost_usd or 0.0, run.tokens), reverse=True)[:count]
    )
