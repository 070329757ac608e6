"""A row from its turns to the report: judged, told as JSON, shown as a table."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO

import pytest
from support.fake_sandbox import CellRun, FakeProvider

from orchestrator.app.host import Report
from orchestrator.bench.benchmark import Benchmark, run_benchmark
from orchestrator.bench.catalogue import BENCHMARKS, select
from orchestrator.bench.figures import Statistic
from orchestrator.bench.ground import (
    EchoModel,
    Ground,
    open_provider,
    open_session,
    read_times,
    run_cell,
    time_cells,
)
from orchestrator.bench.report import BenchReport, Goal, Row
from orchestrator.bench.turns import Contender, Kind, take_turns
from orchestrator.cli.bench_tables import figure, print_report, row_line
from orchestrator.controls import BrokerIsolation
from orchestrator.errors import InputError, SandboxLostError, SandboxStartError
from orchestrator.limits import QueryLimits
from orchestrator.ports import SandboxProvider
from orchestrator.settings import Settings

FLOOR, PEER = "a floor", "a peer"


class Opened:
    """Opens one provider, and keeps the settings it was asked with."""

    def __init__(self, provider: FakeProvider) -> None:
        """Hands out the sandboxes of `provider`."""
        self.settings: list[Settings] = []
        self._provider = provider

    @asynccontextmanager
    async def open(self, settings: Settings, *, report: Report) -> AsyncIterator[SandboxProvider]:
        """Opens it, as settings say."""
        del report
        self.settings.append(settings)
        yield self._provider


def ground_of(provider: FakeProvider) -> tuple[Ground, Opened]:
    opened = Opened(provider)
    ground = Ground(
        settings=Settings(),
        open_sandboxes=opened.open,
        endpoint="unix:///nowhere.sock",
        image_id="sha256:0",
        peers=(),
        is_quick=True,
        say=lambda _sentence: None,
    )
    return ground, opened


def contender(
    name: str, kind: Kind, value: float, order: list[str] | None = None, lacks: str = ""
) -> Contender:
    async def measure() -> Sequence[float]:
        if order is not None:
            order.append(name)
        return [value, 2 * value]

    return Contender(name=name, kind=kind, measure=measure, what=f"what {name} is", lacks=lacks)


def benchmark_of(*contenders: Contender, goals: tuple[Goal, ...] = ()) -> Benchmark:
    @asynccontextmanager
    async def open_contenders(_ground: Ground) -> AsyncIterator[Sequence[Contender]]:
        yield contenders

    return Benchmark(
        name="a-row",
        title="a row",
        measures="something",
        unit="ms",
        goals=goals,
        open_contenders=open_contenders,
        turn_count=4,
        quick_turn_count=2,
        note="a note",
    )


async def a_row(*goals: Goal) -> Row:
    ground, _ = ground_of(FakeProvider())
    contenders = (
        contender(FLOOR, Kind.FLOOR, 1.0, lacks="walls"),
        contender("ours", Kind.OURS, 3.0),
        contender(PEER, Kind.PEER, 6.0, lacks="checkpoints"),
    )
    return await run_benchmark(benchmark_of(*contenders, goals=goals), ground)


def report_of(*rows: Row) -> BenchReport:
    return BenchReport(
        machine={"cpu_count": 2, "load_before": [0.1]},
        rows=rows,
        is_quick=True,
        peers={PEER: "not measured: no index"},
        took_s=1.23,
    )


async def test_contenders_take_turns_and_begin_by_turns() -> None:
    """Each takes as many turns, and each is once the first: what comes first is never the same."""
    order: list[str] = []
    contenders = [contender(name, Kind.VARIANT, 1.0, order) for name in ("a", "b", "c")]

    await take_turns(contenders, count=3)

    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [len(one.turns) for one in contenders] == [3, 3, 3]


async def test_ours_comes_first_and_goals_are_judged_against_their_contender() -> None:
    """A goal is about ours over the one it names; reached, not reached, or not measured."""
    row = await a_row(
        Goal(against=PEER, at_most=0.8),
        Goal(against=FLOOR, at_most=2.0),
        Goal(against="an absent peer", at_most=1.0),
        Goal(at_most=5.0, statistic=Statistic.MAXIMUM),
    )

    assert [one.kind for one in row.series] == [Kind.OURS, Kind.FLOOR, Kind.PEER]
    assert [(goal.found, goal.is_reached) for goal in row.goals] == [
        (0.5, True),
        (3.0, False),
        (None, None),
        (6.0, False),
    ]


async def test_quick_takes_few_turns() -> None:
    """Whoever is in a hurry waits for fewer turns."""
    quick = await a_row()
    ground, _ = ground_of(FakeProvider())
    whole = await run_benchmark(
        benchmark_of(contender("ours", Kind.OURS, 1.0)), replace(ground, is_quick=False)
    )

    assert quick.ours is not None
    assert whole.ours is not None
    assert (quick.ours.figures.count, whole.ours.figures.count) == (4, 8)


@pytest.mark.parametrize(
    "error", [SandboxStartError("no engine"), OSError("no engine"), ValueError("no engine")]
)
async def test_row_that_cannot_be_measured_says_why(error: Exception) -> None:
    """A failure is a row with its reason; the report goes on, and is not complete."""

    async def fail() -> Sequence[float]:
        raise error

    ground, _ = ground_of(FakeProvider())
    broken = Contender(name="ours", kind=Kind.OURS, measure=fail)
    row = await run_benchmark(benchmark_of(broken), ground)

    assert row.problem == "no engine"
    assert not report_of(await a_row(), row).is_complete
    assert report_of(await a_row()).is_complete
    assert "not measured: no engine" in row_line(row)


async def test_json_has_every_figure_and_can_be_read_back() -> None:
    """A program finds each series, what it lacks, the ratio with its range, and each goal."""
    row = await a_row(Goal(against=PEER, at_most=0.8))
    report = json.loads(json.dumps(report_of(row).to_json()))

    assert (report["version"], report["is_quick"]) == (1, True)
    [found] = report["rows"]
    ours, floor, peer = found["series"]
    assert ours["ours_over_it"] is None
    assert (ours["n"], ours["min"], ours["median"], ours["max"]) == (4, 3.0, 4.5, 6.0)
    assert floor["ours_over_it"] == {"median": 3.0, "min": 3.0, "max": 3.0, "turns": 2}
    assert peer["lacks"] == "checkpoints"
    assert found["goals"] == [
        {
            "against": PEER,
            "statistic": "median",
            "at_most": 0.8,
            "found": 0.5,
            "is_reached": True,
        }
    ]
    assert (found["note"], found["problem"]) == ("a note", "")


async def test_table_says_what_was_compared_and_whether_it_was_reached() -> None:
    """A reader sees figures, ratios, goals, what a floor lacks, and which peer was not there."""
    row = await a_row(Goal(against=PEER, at_most=0.8), Goal(against=FLOOR, at_most=2.0))
    stream = StringIO()
    print_report(report_of(row), stream)
    text = stream.getvalue()

    assert "a row (a-row), ms" in text
    assert "0.5 x its median" in text
    assert "≤ 0.8 x: reached" in text
    assert "≤ 2.00 x: NOT reached" in text
    assert "a floor does without: walls" in text
    assert "a peer: not measured: no index" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.02134, "0.0213"), (1.234, "1.23"), (12345.6, "12,346")]
)
def test_figures_have_the_digits_that_count(value: float, text: str) -> None:
    """A table shows three digits, and no decimals where they are noise."""
    assert figure(value) == text


def test_names_of_rows_are_apart() -> None:
    """Each row can be asked for by its name."""
    assert len({one.name for one in BENCHMARKS}) == len(BENCHMARKS)
    assert select([]) == BENCHMARKS
    assert [one.name for one in select(["query", "empty-cell"])] == ["empty-cell", "query"]


def test_unknown_row_is_answered_with_those_there_are() -> None:
    """A misspelt name is told the nearest one, and all of them."""
    with pytest.raises(InputError, match="Did you mean query\\?") as caught:
        select(["empty-cell", "qury"])

    assert all(one.name in str(caught.value) for one in BENCHMARKS)


async def test_sandboxes_are_the_users_but_for_what_a_row_changes() -> None:
    """A row is measured with the user's settings, its own changes apart."""
    ground, opened = ground_of(FakeProvider())
    async with (
        open_provider(ground),
        open_provider(ground, broker=BrokerIsolation.IN_PROCESS, concurrent_query_count=7),
    ):
        pass

    plain, changed = opened.settings
    assert plain == ground.settings
    assert changed.broker is BrokerIsolation.IN_PROCESS
    assert changed.query == QueryLimits(concurrent_queries=7)
    assert changed.sandbox == ground.settings.sandbox


async def test_cells_are_timed_one_after_the_other_in_a_begun_run() -> None:
    """What is timed is a cell of a run that has begun, with its context bound."""
    provider = FakeProvider()
    async with open_session(provider, context_chars=5) as sandbox:
        took_ms = await time_cells(sandbox, "pass", count=3)

    [used] = provider.opened
    assert len(took_ms) == 3
    assert min(took_ms) > 0
    assert used.sources == ["pass"] * 3
    assert len(used.offers) == 1
    assert used.contexts["context"].total_chars == 5


async def test_times_that_a_cell_prints_are_read_as_milliseconds() -> None:
    """A cell's own clock has seconds; rows have milliseconds."""

    async def tell(run: CellRun) -> None:
        run.print("[0.001, 0.25]")

    async with open_session(FakeProvider(tell)) as sandbox:
        assert await read_times(sandbox, "…") == [1.0, 250.0]


async def test_cell_that_fails_is_no_figure() -> None:
    """A cell that raised is an error of the row, with what the cell said; it is not timed."""

    async def fail(_run: CellRun) -> None:
        raise KeyError("nothing")

    async with open_session(FakeProvider(fail)) as sandbox:
        with pytest.raises(SandboxLostError, match="KeyError"):
            await run_cell(sandbox, "…")


async def test_model_of_a_benchmark_answers_each_prompt() -> None:
    """Queries are answered, as many answers as prompts, and no model is asked."""

    async def ask(run: CellRun) -> None:
        run.print(str(await run.ask("a", "b")))

    async with open_session(FakeProvider(ask), queries=EchoModel(delay_s=0.001)) as sandbox:
        assert await run_cell(sandbox, "…") == "['echo: a', 'echo: b']\n"
