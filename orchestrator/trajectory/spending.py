"""What of a recorded run cost how much, and what its time went into.

Without it each display would add up money in its own way: count a repeat twice, leave out what a
failed request is billed for, or read an unknown price as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.chat import ModelReply, ModelUsage
from orchestrator.domain import QueryKind
from orchestrator.events import QueryRefused, RequestFailed
from orchestrator.trajectory.tree import RecordedQuery, RecordedRun, RecordedTurn, Step, queries_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """A sum that says whether something is missing in it.

    Attributes:
        usd: What is known.
        has_unpriced: Whether something was bought whose price is not known.
    """

    usd: float = 0.0
    has_unpriced: bool = False

    def plus(self, other: Money) -> Money:
        """Returns both together."""
        return Money(usd=self.usd + other.usd, has_unpriced=self.has_unpriced or other.has_unpriced)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeShares:
    """Where the seconds of one run went. Parts do not overlap; they add up to the total.

    Attributes:
        total_s: From the first event to the last.
        start_s: Until the sandbox was attached and the context bound.
        root_model_s: Waiting for the root model.
        queries_s: Cells that waited for at least one of their queries, and a direct answer.
        code_s: Cells that did not wait.
        other_s: Between all these.
    """

    total_s: float = 0.0
    start_s: float = 0.0
    root_model_s: float = 0.0
    queries_s: float = 0.0
    code_s: float = 0.0
    other_s: float = 0.0


def money_of(usage: Mapping[str, ModelUsage]) -> Money:
    """Returns what all models cost together, requests that brought nothing included."""
    total = Money()
    for model_usage in usage.values():
        is_unpriced = model_usage.cost_usd is None and model_usage.request_count > 0
        usd = (model_usage.cost_usd or 0.0) + model_usage.unanswered_usd
        total = total.plus(Money(usd=usd, has_unpriced=is_unpriced))
    return total


def usage_by_model(run: RecordedRun) -> dict[str, ModelUsage]:
    """Returns what each model was used for by a run and its child runs, by its name.

    Of a run that ended it is the run's own account. Of one that was cut off it is added up from
    its events, and lacks what was under way.
    """
    if run.ended is not None:
        return dict(run.ended.usage)
    usage: dict[str, ModelUsage] = {}
    for each in run.walk():
        _add_own(usage, each)
    return usage


def run_money(run: RecordedRun) -> Money:
    """Returns what a run and its child runs cost."""
    return money_of(usage_by_model(run))


def turn_money(turn: RecordedTurn) -> Money:
    """Returns what a turn cost: its reply, the queries of its cells, and their child runs."""
    total = steps_money(turn.failed_requests)
    if turn.reply is not None:
        total = total.plus(_reply_money(turn.reply.reply))
    for cell in turn.cells:
        total = total.plus(steps_money(cell.steps))
    return total


def steps_money(steps: Iterable[Step]) -> Money:
    """Returns what some queries cost, with their child runs and requests that failed."""
    total = Money()
    for step in steps:
        match step:
            case RecordedQuery():
                total = total.plus(query_money(step))
            case RequestFailed():
                total = total.plus(Money(usd=step.charged_usd))
            case QueryRefused():
                pass
    return total


def query_money(query: RecordedQuery) -> Money:
    """Returns what one prompt cost, with the child run that answered it."""
    if query.child_run is not None:
        return run_money(query.child_run)
    if not _is_charged(query) or query.ended is None or query.ended.reply is None:
        return Money()
    return _reply_money(query.ended.reply)


def query_tokens(queries: Iterable[RecordedQuery]) -> tuple[int, int]:
    """Returns the tokens that queries took, their child runs included: prompt, completion."""
    prompt_tokens = completion_tokens = 0
    for query in queries:
        if query.child_run is not None:
            usages = usage_by_model(query.child_run).values()
            prompt_tokens += sum(usage.prompt_tokens for usage in usages)
            completion_tokens += sum(usage.completion_tokens for usage in usages)
        elif query.ended is not None and query.ended.reply is not None and _is_charged(query):
            prompt_tokens += query.ended.reply.prompt_tokens
            completion_tokens += query.ended.reply.completion_tokens
    return prompt_tokens, completion_tokens


def elapsed_s(run: RecordedRun) -> float | None:
    """Returns how long a run took; None where that was not recorded."""
    if run.ended is not None:
        return run.ended.timings.total_s
    if run.started_at is None or run.last_at is None:
        return None
    return (run.last_at - run.started_at).total_seconds()


def turn_s(turn: RecordedTurn) -> float:
    """Returns the seconds of a turn: waiting for its reply, and its cells."""
    reply_s = 0.0 if turn.reply is None else turn.reply.wall_s
    return reply_s + sum(
        cell.ended.result.usage.wall_s for cell in turn.cells if cell.ended is not None
    )


def time_shares(run: RecordedRun) -> TimeShares:
    """Returns where the time of a run went; its child runs are queries of its cells."""
    root_model_s = sum(turn.reply.wall_s for turn in run.turns if turn.reply is not None)
    cells_s = queries_s = 0.0
    for turn in run.turns:
        for cell in turn.cells:
            waited_s = _waited_s(cell.queries)
            cell_s = waited_s if cell.ended is None else cell.ended.result.usage.wall_s
            cells_s += cell_s
            queries_s += min(waited_s, cell_s)
    if run.ended is not None:
        # Its stopwatches also ran for what was cancelled, and for a last request.
        root_model_s, cells_s = run.ended.timings.root_model_s, run.ended.timings.cells_s
    queries_s = min(queries_s, cells_s)
    start_s = 0.0 if run.ready is None else run.ready.start_s
    direct_s = _waited_s(queries_in(run.before_turns))
    total_s = max(elapsed_s(run) or 0.0, start_s + direct_s + root_model_s + cells_s)
    return TimeShares(
        total_s=total_s,
        start_s=start_s,
        root_model_s=root_model_s,
        queries_s=direct_s + queries_s,
        code_s=cells_s - queries_s,
        other_s=max(total_s - start_s - direct_s - root_model_s - cells_s, 0.0),
    )


def _add_own(usage: dict[str, ModelUsage], run: RecordedRun) -> None:
    def add(model: str, reply: ModelReply) -> None:
        usage[model] = usage.get(model, ModelUsage()).plus(reply)

    for turn in run.turns:
        if turn.reply is not None:
            add(run.started.root_model, turn.reply.reply)
    for query in run.queries:
        if query.ended is not None and query.ended.reply is not None and _is_charged(query):
            add(query.started.model, query.ended.reply)
    for failed in run.failed_requests:
        if failed.charged_usd:
            unanswered = usage.get(failed.model, ModelUsage())
            usage[failed.model] = unanswered.plus_unanswered(usd=failed.charged_usd)


def _is_charged(query: RecordedQuery) -> bool:
    """Whether the reply's tokens and money are the query's own: no repeat, child run or tool."""
    return query.started.kind is QueryKind.PLAIN and not query.started.is_repeat


def _reply_money(reply: ModelReply) -> Money:
    return Money(usd=reply.cost_usd or 0.0, has_unpriced=reply.cost_usd is None)


def _waited_s(queries: Sequence[RecordedQuery]) -> float:
    """Returns for how many seconds at least one of some queries was open.

    Without recorded times the longest of each request is taken: its prompts are sent together.
    """
    timed = [
        (query.ended_at - timedelta(seconds=query.ended.wall_s), query.ended_at)
        for query in queries
        if query.ended is not None and query.ended_at is not None
    ]
    if timed:
        return _covered_s(sorted(timed))
    longest: dict[str, float] = {}
    for query in queries:
        if query.ended is not None:
            known_s = longest.get(query.started.query_id, 0.0)
            longest[query.started.query_id] = max(known_s, query.ended.wall_s)
    return sum(longest.values())


def _covered_s(intervals: Sequence[tuple[datetime, datetime]]) -> float:
    covered_s, reached = 0.0, intervals[0][0]
    for start, end in intervals:
        if end > reached:
            covered_s += (end - max(start, reached)).total_seconds()
            reached = end
    return covered_s
