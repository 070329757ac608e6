"""Trajectories as runs leave them, written by hand, for tests of whatever reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.statements import controls_of

from orchestrator.chat import Message, ModelReply, ModelUsage
from orchestrator.domain import (
    AnswerSource,
    CellError,
    CellId,
    CellResult,
    CellUsage,
    ContextKind,
    Draft,
    Efficiency,
    FinishReason,
    Outcome,
    Printed,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    QueryKind,
    RunId,
    Timings,
    Variable,
    VariableState,
)
from orchestrator.events import (
    CellEnded,
    CellStarted,
    Noticed,
    NoticeKind,
    QueryEnded,
    QueryRefused,
    QueryStarted,
    ReplyReceived,
    RequestFailed,
    RunEnded,
    RunEvent,
    RunStarted,
    SandboxReady,
    TranscriptCompacted,
    TurnStarted,
)
from orchestrator.trajectory.lines import RecordedEvent, line_of

BEGAN = datetime(2026, 11, 3, 14, 5, 12, tzinfo=UTC)
ROOT, SUB = "gpt-5", "gpt-5-mini"
QUESTION = "Which function parses the header, and what does it do with one that is malformed?"
DIRECT_CONTEXT = "Paris, Rome"
SYSTEM = Message("system", "You answer questions about `context` by writing Python.")


class Chronicle:
    """Writes down events with times of their own, as a run's sink would see them."""

    def __init__(self) -> None:
        """Begins without events."""
        self.records: list[RecordedEvent] = []
        self._now = BEGAN

    def tell(self, event: RunEvent, *, after_s: float = 0.0) -> None:
        """Adds an event that happens some seconds after the one before."""
        self._now += timedelta(seconds=after_s)
        self.records.append(RecordedEvent(event=event, time=self._now))


class RunTeller:
    """Tells one run to a chronicle."""

    def __init__(self, chronicle: Chronicle, run_id: str) -> None:
        """Names the run; nothing is told yet."""
        self.run_id = RunId(run_id)
        self._chronicle = chronicle
        self._turn = 0
        self._cell_id = 0
        self._query_count = 0

    def tell(self, event: RunEvent, *, after_s: float = 0.0) -> None:
        """Adds any event."""
        self._chronicle.tell(event, after_s=after_s)

    def begin(self, **changes: object) -> None:
        """The run begins, with a text of 12.6 million characters unless told otherwise."""
        started = RunStarted(
            run_id=self.run_id,
            question=QUESTION,
            context_kind=ContextKind.TEXT,
            context_chars=12_600_000,
            context_sha256_hex="ab" * 32,
            root_model=ROOT,
            sub_model=SUB,
            profile="gpt-5",
            is_scripted=False,
            prompt_version=2,
        )
        self.tell(replace(started, **changes))  # type: ignore[arg-type]  # fields by name

    def ready(self) -> None:
        """Its sandbox is attached."""
        self.tell(
            SandboxReady(
                run_id=self.run_id,
                sandbox_id=f"s-{self.run_id}",
                image_id="sha256:" + "0" * 64,
                runtime="runsc",
                start_s=0.42,
                controls=controls_of(f"s-{self.run_id}"),
            ),
            after_s=0.42,
        )

    def turn(
        self,
        messages: Sequence[Message],
        reply: str | None,
        *,
        cost_usd: float | None = 0.01,
        wall_s: float = 4.0,
        cell_count: int = 1,
        failed: Sequence[RequestFailed] = (),
    ) -> None:
        """The root model is asked and, unless `reply` is None, answers in the end."""
        self._turn += 1
        self.tell(
            TurnStarted(run_id=self.run_id, turn=self._turn, messages=tuple(messages)),
            after_s=0.01,
        )
        for failure in failed:
            self.tell(failure)
        if reply is None:
            return
        self.tell(
            ReplyReceived(
                run_id=self.run_id,
                turn=self._turn,
                reply=ModelReply(
                    text=reply,
                    prompt_tokens=8_412,
                    completion_tokens=388,
                    cached_prompt_tokens=6_144,
                    cost_usd=cost_usd,
                ),
                cell_count=cell_count,
                wall_s=wall_s,
            ),
            after_s=wall_s,
        )

    def cell(self, source: str) -> None:
        """A cell begins."""
        self._cell_id += 1
        self.tell(
            CellStarted(
                run_id=self.run_id, turn=self._turn, cell_id=CellId(self._cell_id), source=source
            )
        )

    def end_cell(self, *, after_s: float = 0.31, **changes: object) -> None:
        """The cell ends, having succeeded unless told otherwise."""
        result = CellResult(
            cell_id=CellId(self._cell_id),
            outcome=Outcome.SUCCEEDED,
            state=VariableState.KEPT,
            usage=CellUsage(wall_s=after_s, cpu_s=0.2, peak_memory_bytes=2**26),
        )
        changed = replace(result, **changes)  # type: ignore[arg-type]  # fields by name
        self.tell(CellEnded(run_id=self.run_id, turn=self._turn, result=changed), after_s=after_s)

    def ask(
        self,
        *prompts: str,
        kind: QueryKind = QueryKind.PLAIN,
        model: str = SUB,
        tool_name: str = "",
        context_chars: int = 0,
        repeats: Iterable[int] = (),
    ) -> QueryId:
        """The cell sends prompts, all of which are admitted."""
        self._query_count += 1
        query_id = QueryId(f"q{self._query_count}")
        for index, prompt in enumerate(prompts):
            self.tell(
                QueryStarted(
                    run_id=self.run_id,
                    query_id=query_id,
                    prompt_index=index,
                    cell_id=CellId(self._cell_id),
                    prompt=prompt,
                    kind=kind,
                    model=model,
                    tool_name=tool_name,
                    context_chars=context_chars,
                    is_repeat=index in set(repeats),
                )
            )
        return query_id

    def answer(
        self,
        query_id: QueryId,
        text: str | QueryFailure,
        *,
        index: int = 0,
        wall_s: float = 1.5,
        after_s: float | None = None,
        is_repeat: bool = False,
        is_free: bool = False,
        notice: str = "",
    ) -> None:
        """One prompt is answered, or fails."""
        paid = ModelReply(
            text=str(text), prompt_tokens=1_200, completion_tokens=60, cost_usd=0.0004
        )
        free = ModelReply(text=str(text), cost_usd=0.0)
        self.tell(
            QueryEnded(
                run_id=self.run_id,
                query_id=query_id,
                prompt_index=index,
                reply=None
                if isinstance(text, QueryFailure)
                else (free if is_repeat or is_free else paid),
                failure=text if isinstance(text, QueryFailure) else None,
                wall_s=wall_s,
                is_repeat=is_repeat,
                notice=notice,
            ),
            after_s=wall_s if after_s is None else after_s,
        )

    def end(
        self,
        answer: str = "",
        *,
        reason: FinishReason = FinishReason.ANSWERED,
        source: AnswerSource | None = None,
        **changes: object,
    ) -> None:
        """The run ends; figures that are not given are small."""
        if source is None:
            source = AnswerSource.FINAL if answer else AnswerSource.NONE
        ended = RunEnded(
            run_id=self.run_id,
            finish_reason=reason,
            answer=answer,
            answer_source=source,
            failure="",
            usage={ROOT: ModelUsage(request_count=1, prompt_tokens=10, cost_usd=0.01)},
            turn_count=self._turn,
            query_count=self._query_count,
            timings=Timings(total_s=10.0, start_s=0.42, root_model_s=4.0, cells_s=2.0),
        )
        self.tell(replace(ended, **changes), after_s=0.02)  # type: ignore[arg-type]  # by name


def told(text: str) -> Message:
    """What the harness says."""
    return Message("user", text)


def said(text: str) -> Message:
    """What the model said, as the chat has it."""
    return Message("assistant", text)


def fenced(source: str, prose: str = "") -> str:
    """A reply with one cell."""
    return f"{prose}\n\n```repl\n{source}\n```".strip()


LOOK = """\
import re
lines = context.split("\\n")
hits = [i for i, line in enumerate(lines) if re.search(r"def \\w*header", line)]
print(len(lines), "lines,", len(hits), "hits")
for i in hits[:5]:
    print(i, lines[i])"""
ASK = """\
pieces = ["\\n".join(lines[i : i + 60]) for i in hits]
answers = llm_query_batched([f"Does this parse a header?\\n{piece}" for piece in pieces])
print(answers)"""
GREEDY = 'grid = [[0] * len(context) for _ in range(len(hits))]\nprint("done")'
DELVE = """\
verdict = rlm_query("What happens to a malformed header?", pieces[1])
owner = lookup("http.client")
print(verdict, owner)"""
FINISH = 'FINAL(f"parse_headers in http/client.py; {verdict}")'
ANSWER = "parse_headers in http/client.py; it raises LineTooLong or HTTPException"
CHILD_QUESTION = "What happens to a malformed header?"


def rich_run(run_id: str = "3f2a91c07d4e4b0f8a11", *, compacts: bool = True) -> Chronicle:
    """A run in which nearly everything happens, with a child run, and which ends well."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, run_id)
    run.begin(tool_names=("lookup",))
    run.ready()
    opening = told(f"Question:\n{QUESTION}\n\nThe variable `context` is a str of 12,600,000.")
    first = fenced(LOOK, "Let me look at the shape of the context before deciding anything.")
    run.turn((SYSTEM, opening), first, cost_usd=0.0141)
    run.cell(LOOK)
    run.end_cell(
        stdout=Printed(
            head="312044 lines, 3 hits\n"
            "81120 def parse_headers(fp, _class=HTTPMessage):\n"
            "90377     def _read_header(self):\n"
            "155802 def decode_header(header):\n",
            total_bytes=141,
        ),
        variables=(Variable(name="hits", type_name="list", size=3),),
    )
    second = f"{fenced(ASK)}\n\n{fenced(GREEDY)}"
    feedback = told("REPL output:\n312044 lines, 3 hits\n…\n\nLeft: 29 turns, 500 queries.")
    run.turn((said(first), feedback), second, cost_usd=0.0152, wall_s=6.2, cell_count=2)
    _ask_in_vain_and_again(run)
    third = fenced(DELVE, "One of them is the parser. A closer look at what it does with errors.")
    told_then = told("REPL output of block 1 of 2:\n['yes', 'no', 'yes']\n…")
    failed = RequestFailed(
        run_id=run.run_id,
        model=ROOT,
        why="expected a reply from model 'gpt-5' at api.example, came no reply within 600 s",
        wait_s=0.5,
        charged_usd=0.012,
    )
    run.turn((said(second), told_then), third, cost_usd=0.0160, failed=[failed])
    _delve(chronicle, run)
    fourth = fenced(ASK, "Let me verify this once more.")
    run.turn((said(third), told("REPL output:\nraises\n…")), fourth, cost_usd=0.0171)
    _verify(run)
    after: tuple[Message, ...] = (
        said(fourth),
        told("REPL output:\nas before\n\n2 of the 3 prompts …"),
    )
    if compacts:
        run.tell(
            TranscriptCompacted(
                run_id=run.run_id, turn=5, turn_count=2, before_chars=61_020, after_chars=20_480
            )
        )
        short = said(fenced(LOOK))
        after = (SYSTEM, opening, short, told("(shortened) 312044 lines"), said(third), *after)
    run.turn(after, fenced(FINISH), cost_usd=0.0098, wall_s=2.2)
    run.cell(FINISH)
    run.end_cell(after_s=0.02, answer=Draft(content=ANSWER, is_ready=True))
    run.end(
        ANSWER,
        usage={
            ROOT: ModelUsage(
                request_count=5,
                prompt_tokens=42_060,
                completion_tokens=1_940,
                cached_prompt_tokens=30_720,
                cost_usd=0.0722,
                unanswered_count=1,
                unanswered_usd=0.012,
            ),
            SUB: ModelUsage(
                request_count=5,
                prompt_tokens=20_424,
                completion_tokens=956,
                cached_prompt_tokens=12_288,
                cost_usd=0.0173,
            ),
        },
        timings=Timings(total_s=46.39, start_s=0.42, root_model_s=20.4, cells_s=25.5),
        query_count=4,
        child_run_count=1,
        tool_call_count=1,
        efficiency=Efficiency(
            context_chars=12_600_000,
            sent_query_count=4,
            sent_chars=41_000,
            repeated_query_count=3,
            notice_count=1,
            one_prompt_usd=3.9375,
            fits_one_prompt=False,
        ),
    )
    return chronicle


def _ask_in_vain_and_again(run: RunTeller) -> None:
    """A batch that is refused, one that is answered but for one, and a cell that is killed."""
    run.cell(ASK)
    refusal = QueryFailure(
        reason=QueryFailureReason.BUDGET_EXHAUSTED,
        message="600 prompts asked, 500 queries left; send fewer, longer prompts",
    )
    run.tell(
        QueryRefused(
            run_id=run.run_id,
            query_id=QueryId("q0"),
            cell_id=CellId(2),
            prompt_count=600,
            failure=refusal,
        )
    )
    batch = [f"Does this parse a header?\n{name}" for name in ("alpha", "beta", "alpha")]
    query = run.ask(*batch, repeats=(2,))
    run.tell(
        RequestFailed(
            run_id=run.run_id,
            model=SUB,
            why="expected a reply from model 'gpt-5-mini' at api.example, came status 429",
            wait_s=1.2,
        ),
        after_s=0.3,
    )
    run.answer(query, "Yes: it reads lines up to an empty one.", index=0, wall_s=2.0, after_s=1.7)
    failure = QueryFailure(
        reason=QueryFailureReason.MODEL_REFUSED,
        message="the sub-model refused this prompt for good",
    )
    run.answer(query, failure, index=1, wall_s=2.4, after_s=0.4)
    run.answer(
        query,
        "Yes: it reads lines up to an empty one.",
        index=2,
        wall_s=2.0,
        after_s=0.0,
        is_repeat=True,
    )
    run.end_cell(
        after_s=0.2,
        outcome=Outcome.RAISED,
        usage=CellUsage(wall_s=2.6, query_count=3),
        stderr=Printed(head="an answer was cut off at its length limit\n", total_bytes=42),
        error=CellError(
            type_name="QueryBatchError",
            message="1 of 3 prompts got no answer",
            traceback='Traceback:\n  cell 2, line 2\n    answers = llm_query_batched([f"Doe…',
        ),
    )
    run.cell(GREEDY)
    run.end_cell(
        after_s=9.8,
        outcome=Outcome.KILLED,
        state=VariableState.ROLLED_BACK,
        error=CellError(type_name="MemoryError", message="the sandbox's memory is used up"),
    )


def _delve(chronicle: Chronicle, run: RunTeller) -> None:
    """A child run, and a call of a tool."""
    run.cell(DELVE)
    query = run.ask(CHILD_QUESTION, kind=QueryKind.CHILD_RUN, model=SUB, context_chars=40_000)
    child = RunTeller(chronicle, f"c0ffee{run.run_id}")
    child.begin(
        question=CHILD_QUESTION,
        context_chars=40_000,
        root_model=SUB,
        parent_run_id=run.run_id,
        parent_query_id=query,
        depth=1,
    )
    child.ready()
    source = 'print(llm_query("Summarise:\\n" + context))'
    child.turn((SYSTEM, told(f"Question:\n{CHILD_QUESTION}")), fenced(source), cost_usd=0.0061)
    child.cell(source)
    asked = child.ask("Summarise:\ndef parse_headers(fp): …")
    child.answer(asked, "It raises LineTooLong, or HTTPException after 100 lines.", wall_s=3.1)
    child.end_cell(after_s=0.1, stdout=Printed(head="It raises LineTooLong …\n", total_bytes=24))
    last = 'FINAL("it raises LineTooLong or HTTPException")'
    child.turn((said(fenced(source)), told("REPL output:\nIt raises …")), fenced(last))
    child.cell(last)
    answer = "it raises LineTooLong or HTTPException"
    child.end_cell(after_s=0.01, answer=Draft(content=answer, is_ready=True))
    child.end(
        answer,
        usage={
            SUB: ModelUsage(
                request_count=3,
                prompt_tokens=18_024,
                completion_tokens=836,
                cached_prompt_tokens=12_288,
                cost_usd=0.0165,
            )
        },
        timings=Timings(total_s=11.67, start_s=0.42, root_model_s=8.0, cells_s=3.2),
        efficiency=Efficiency(context_chars=40_000, sent_query_count=1, sent_chars=40_100),
    )
    run.answer(query, answer, wall_s=11.67, after_s=0.0, is_free=True)
    call = run.ask(
        '{"args": ["http.client"], "kwargs": {}}', kind=QueryKind.TOOL, model="", tool_name="lookup"
    )
    run.answer(call, '"the net team"', wall_s=0.1, after_s=0.1, is_free=True)
    run.end_cell(
        after_s=0.0,
        usage=CellUsage(wall_s=11.77, query_count=2),
        stdout=Printed(head=f"{answer} the net team\n", total_bytes=51),
        answer=Draft(content="parse_headers in http/client.py"),
    )


def _verify(run: RunTeller) -> None:
    """Prompts that were answered before, and what the root model is told about them."""
    run.cell(ASK)
    batch = [f"Does this parse a header?\n{name}" for name in ("alpha", "gamma", "alpha")]
    query = run.ask(*batch, repeats=(0, 2))
    for index in (0, 2):
        run.answer(query, "Yes: …", index=index, wall_s=0.0, after_s=0.0, is_repeat=True)
    run.answer(query, "No.", index=1, wall_s=0.9, after_s=0.9, notice="an answer was cut off")
    run.end_cell(
        after_s=0.1,
        usage=CellUsage(wall_s=1.0, query_count=3),
        stdout=Printed(
            head="['Yes: …', 'No.'\n", tail="'Yes: …']\n", total_bytes=90_000, dropped_bytes=24_000
        ),
    )
    run.tell(
        Noticed(
            run_id=run.run_id,
            turn=4,
            kind=NoticeKind.REPEATED_QUERIES,
            text="2 of the 3 prompts of this turn had been asked before, and got the same answers "
            "again, at no cost. They will not change: use them, or make the answer final.",
        )
    )


def cancelled_run(run_id: str = "bad0cafe") -> Chronicle:
    """A run that its caller ended while a query was open."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, run_id)
    run.begin()
    run.ready()
    run.turn((SYSTEM, told("Question:\nq")), fenced(ASK), cost_usd=0.02)
    run.cell(ASK)
    query = run.ask("Does this parse a header?\nalpha")
    failure = QueryFailure(
        reason=QueryFailureReason.CANCELLED, message="the cell ended before the answer came"
    )
    run.answer(query, failure, after_s=5.0, wall_s=5.0)
    run.end(
        "a draft",
        reason=FinishReason.CANCELLED,
        source=AnswerSource.DRAFT,
        usage={ROOT: ModelUsage(request_count=1, prompt_tokens=8_412, cost_usd=0.02)},
    )
    return chronicle


def direct_run(run_id: str = "d1e2c7") -> Chronicle:
    """A run over a short context, which went straight to the sub-model."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, run_id)
    digest = hashlib.sha256(DIRECT_CONTEXT.encode()).hexdigest()
    run.begin(question="Which city?", context_chars=11, context_sha256_hex=digest)
    run.tell(
        QueryStarted(
            run_id=run.run_id,
            query_id=QueryId("direct"),
            prompt_index=0,
            cell_id=CellId(0),
            prompt="Which city?",
            model=SUB,
            context_chars=11,
        )
    )
    run.answer(QueryId("direct"), "Paris", after_s=1.5)
    run.end(
        "Paris",
        source=AnswerSource.DIRECT,
        usage={SUB: ModelUsage(request_count=1, prompt_tokens=1_200, cost_usd=0.0004)},
        turn_count=0,
        timings=Timings(total_s=1.5, start_s=0.0, root_model_s=0.0, cells_s=0.0),
        efficiency=Efficiency(context_chars=11, sent_query_count=1, sent_chars=22),
    )
    return chronicle


def write(path: Path, *chronicles: Chronicle, records_text: bool = True) -> Path:
    """Writes trajectories into one file, one after the other."""
    with path.open("a", encoding="ascii") as file:
        for chronicle in chronicles:
            for record in chronicle.records:
                time = record.time or BEGAN
                line = line_of(record.event, time=time, records_text=records_text)
                file.write(f"{line}\n")
    return path
