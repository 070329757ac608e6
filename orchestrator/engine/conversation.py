"""Turns with the root model: ask, run the cells of its reply, tell it what came of them.

Without it there is no run: this is what makes a model and a Python session one thing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.domain import CellId, CellResult, FinishReason, OutputStream
from orchestrator.engine.cell_report import cell_report
from orchestrator.engine.compaction import compacted
from orchestrator.engine.notices import TurnFacts, Watch
from orchestrator.engine.parsing import ParsedReply, parse_reply
from orchestrator.engine.prompts.opening import Opening, brief_opening_text, opening_text
from orchestrator.engine.prompts.remarks import (
    EMPTY_ANSWER,
    LAST_TURN,
    last_request,
    repair,
    status,
)
from orchestrator.engine.run_record import RunRecord
from orchestrator.engine.setup import RunSetup, Tree
from orchestrator.engine.transcript import Transcript, Turn
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    CellStarted,
    Noticed,
    ReplyPiece,
    ReplyReceived,
    TranscriptCompacted,
    TurnStarted,
)
from orchestrator.ports import Sandbox

_PROBE_TURN = 0


class Conversation:
    """One run's turns. Used once."""

    def __init__(  # noqa: PLR0913 - what turns are made of, each named at the call
        self,
        *,
        setup: RunSetup,
        tree: Tree,
        record: RunRecord,
        system: str,
        last_cell_id: CellId,
        may_use_what_is_kept_back: bool,
    ) -> None:
        """Joins the parts; nothing is asked yet.

        Args:
            setup: Parts and rules.
            tree: Pays.
            record: Told of everything.
            system: The system message.
            last_cell_id: Of the last cell that the sandbox has run, in earlier runs; 0 for none.
            may_use_what_is_kept_back: Whether the last request may spend what the ledger keeps
                back for it: it is kept for the run of the caller's, not for its child runs.
        """
        self._setup = setup
        self._profile = setup.profile
        self._tree = tree
        self._model = tree.paid(setup.root_model, setup.retry_for(setup.root_model))
        self._record = record
        self._system = system
        self._transcript = Transcript(opening=())
        self._sent_count = 0
        self._unquoted: dict[int, Message] = {}
        self._last_cell_id = last_cell_id
        self._may_use_what_is_kept_back = may_use_what_is_kept_back
        self._watch = Watch()
        self._deadline_s = math.inf
        self._last_reply = ""  # the one that made the answer final: nobody was told of it any more

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat so far, without the system message and the profile's examples."""
        skipped = 1 + len(self._profile.few_shot)
        messages = self._transcript.messages()[skipped:]
        return (*messages, Message("assistant", self._last_reply)) if self._last_reply else messages

    @property
    def last_cell_id(self) -> CellId:
        """Of the last cell that the sandbox has run."""
        return self._last_cell_id

    @property
    def has_turns(self) -> bool:
        """Whether the root model has seen anything of the context."""
        return bool(self._transcript.turns)

    async def hold(self, sandbox: Sandbox, opening: Opening, *, deadline_s: float) -> FinishReason:
        """Takes turns until an answer is final or a limit is reached.

        A final answer is the record's draft afterwards.

        Args:
            sandbox: Where the cells run.
            opening: What the root model is told first.
            deadline_s: When time is over, by the event loop's clock. A cell that runs then is
                stopped, and its draft counts.

        Raises:
            BudgetExhaustedError: A turn cannot be paid for.
            ModelError: The root model did not answer.
            SandboxLostError: The sandbox died.
            ProtocolViolationError: The sandbox broke the contract.
        """
        self._deadline_s = deadline_s
        loop = asyncio.get_running_loop()
        stopping = loop.call_at(deadline_s, sandbox.stop_cell)
        try:
            await self._open(sandbox, opening)
            for turn in range(1, self._setup.limits.turns + 1):
                self._make_room(turn)
                async with asyncio.timeout_at(deadline_s):
                    reply = await self._ask(turn)
                if await self._run_cells(sandbox, turn, reply):
                    return FinishReason.ANSWERED
                if self._tree.ledger.is_used_up("queries"):
                    return FinishReason.QUERY_LIMIT
        except TimeoutError:
            if loop.time() < deadline_s:
                raise
            return FinishReason.TIME_LIMIT
        finally:
            stopping.cancel()
        return FinishReason.TURN_LIMIT

    async def ask_for_best_answer(self, limit: str) -> str:
        """Asks the root model once more, for a text; empty where it gives none.

        Args:
            limit: The limit that was reached, as a sentence has it.

        Raises:
            BudgetExhaustedError: Not even that can be paid for.
            ModelError: It did not answer.
        """
        record, turn = self._record, self._record.turn_count + 1
        messages = self._transcript.messages_with(last_request(limit))
        new = self._new_among(messages)
        record.tell(TurnStarted(run_id=record.run_id, turn=turn, messages=new))
        started_s = time.monotonic()
        reply = await self._complete(messages, turn=turn, is_last=self._may_use_what_is_kept_back)
        wall_s = time.monotonic() - started_s
        record.tell(
            ReplyReceived(run_id=record.run_id, turn=turn, reply=reply, cell_count=0, wall_s=wall_s)
        )
        parsed = parse_reply(reply.text, accepts_bare_code=False, was_cut=False)
        # One more cell is no answer, and would be mistaken for one.
        return "" if parsed.cells and not parsed.prose else parsed.spoken

    async def _open(self, sandbox: Sandbox, opening: Opening) -> None:
        profile = self._profile
        text = brief_opening_text if profile.is_brief else opening_text
        task, unquoted = text(opening), text(opening, quotes=False)
        before = (Message("system", self._system), *profile.few_shot)
        lead = ""
        if profile.probe_source:
            self._record.tell(TurnStarted(run_id=self._record.run_id, turn=_PROBE_TURN))
            result = await self._run_cell(sandbox, _PROBE_TURN, profile.probe_source)
            before = (
                *before,
                Message("user", profile.probe_opening),
                Message("assistant", f"```repl\n{profile.probe_source}\n```"),
            )
            lead = f"REPL output:\n{self._report(result, share=1)}\n\n"
        self._transcript = Transcript(opening=(*before, Message("user", f"{lead}{task}")))
        if unquoted != task:
            self._unquoted = {len(before): Message("user", f"{lead}{unquoted}")}

    def _make_room(self, turn: int) -> None:
        most_chars = self._setup.compacts_above_chars
        if most_chars is None or self._transcript.char_count <= most_chars:
            return
        compaction = compacted(self._transcript, accepts_bare_code=self._profile.accepts_bare_code)
        if compaction is None:
            return
        self._transcript = compaction.transcript
        self._sent_count = 0
        self._record.tell(
            TranscriptCompacted(
                run_id=self._record.run_id,
                turn=turn,
                turn_count=compaction.turn_count,
                before_chars=compaction.before_chars,
                after_chars=compaction.after_chars,
            )
        )

    async def _ask(self, turn: int) -> ParsedReply:
        messages = self._transcript.messages()
        new = self._new_among(messages)
        self._record.tell(TurnStarted(run_id=self._record.run_id, turn=turn, messages=new))
        started_s = time.monotonic()
        reply = await self._complete(messages, turn=turn)
        self._sent_count = len(messages)
        self._record.turn_count = turn
        parsed = parse_reply(
            reply.text,
            accepts_bare_code=self._profile.accepts_bare_code,
            was_cut=reply.was_cut,
        )
        self._record.tell(
            ReplyReceived(
                run_id=self._record.run_id,
                turn=turn,
                reply=reply,
                cell_count=len(parsed.cells),
                wall_s=time.monotonic() - started_s,
            )
        )
        return parsed

    def _new_among(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Returns what was not sent before, as events have it."""
        return tuple(
            self._unquoted.get(index, message)
            for index, message in enumerate(messages)
            if index >= self._sent_count
        )

    async def _complete(
        self, messages: Sequence[Message], *, turn: int, is_last: bool = False
    ) -> ModelReply:
        request = ModelRequest(
            messages=tuple(messages),
            max_completion_tokens=self._profile.max_completion_tokens,
            on_behalf_of=self._tree.on_behalf_of,
        )
        ledger = self._tree.ledger
        [planned] = self._model.plan([request], ledger=ledger, is_last=is_last)
        [reservation] = ledger.reserve([planned.amounts], model=self._model.name, is_last=is_last)

        def show(text: str) -> bool:
            self._record.tell(ReplyPiece(run_id=self._record.run_id, turn=turn, text=text))
            return True

        try:
            with self._record.root_model.running():
                return await self._model.ask(
                    planned,
                    reservation,
                    account=self._record.account,
                    run_id=self._record.run_id,
                    tell=self._record.tell,
                    on_text=show if self._setup.streams_replies else None,
                )
        finally:
            reservation.close()

    async def _run_cells(self, sandbox: Sandbox, turn: int, reply: ParsedReply) -> bool:
        """Runs the cells of a reply until one makes the answer final.

        Returns:
            Whether one did. Later cells of the same reply have not run then: they were written
            before the model could know.
        """
        if not reply.cells:
            self._add_turn(turn, reply, [repair(reply, is_brief=self._profile.is_brief)])
            return False
        reports: list[str] = []
        is_blank_final = False
        before = self._record.efficiency
        for source in reply.cells:
            result = await self._run_cell(sandbox, turn, source)
            reports.append(self._report(result, share=len(reply.cells)))
            if result.answer.is_ready and result.answer.content.strip():
                self._last_reply = reply.spoken
                return True
            if asyncio.get_running_loop().time() >= self._deadline_s:
                raise TimeoutError
            is_blank_final = result.answer.is_ready
        remarks = [EMPTY_ANSWER] if is_blank_final else []
        after = self._record.efficiency
        repeated = after.repeated_query_count - before.repeated_query_count
        facts = TurnFacts(
            turn=turn,
            cells=reply.cells,
            reports=reports,
            draft=self._record.draft,
            asked_count=after.sent_query_count - before.sent_query_count + repeated,
            repeated_count=repeated,
        )
        for notice in self._watch.look(facts):
            remarks.append(notice.text)
            self._record.tell(
                Noticed(run_id=self._record.run_id, turn=turn, kind=notice.kind, text=notice.text)
            )
        self._add_turn(turn, reply, [*_titled(reports), *remarks])
        return False

    async def _run_cell(self, sandbox: Sandbox, turn: int, source: str) -> CellResult:
        # A sandbox numbers its cells in order and tells the number with the result; the display
        # needs it before.
        cell_id = CellId(self._last_cell_id + 1)
        run_id = self._record.run_id
        self._record.tell(CellStarted(run_id=run_id, turn=turn, cell_id=cell_id, source=source))

        def pass_on(stream: OutputStream, data: bytes) -> None:
            self._record.tell(CellPrinted(run_id=run_id, cell_id=cell_id, stream=stream, data=data))

        with self._record.cells.running():
            result = await sandbox.run_cell(
                source, timeout_s=self._setup.cell_limits.wall_s, on_output=pass_on
            )
        self._last_cell_id = result.cell_id
        # An empty text never replaces a draft: the answer of a session whose variables were lost
        # is empty too.
        self._record.draft = result.answer.content or self._record.draft
        self._record.tell(CellEnded(run_id=run_id, turn=turn, result=result))
        return result

    def _report(self, result: CellResult, *, share: int) -> str:
        return cell_report(
            result,
            output_chars=self._profile.output_chars // share,
            timeout_s=self._setup.cell_limits.wall_s,
            is_brief=self._profile.is_brief,
            answers_repeats_once=self._setup.answers_repeats_once,
        )

    def _add_turn(self, turn: int, reply: ParsedReply, told: list[str]) -> None:
        left_turn_count = self._setup.limits.turns - turn
        ledger = self._tree.ledger
        if not self._profile.is_brief:
            left = ledger.left("nanodollars")
            told.append(
                status(
                    left_turn_count=left_turn_count,
                    left_query_count=ledger.left("queries") or 0,
                    left_s=ledger.left_s,
                    left_usd=None if left is None else left / 1e9,
                )
            )
        elif left_turn_count == 1:
            told.append(LAST_TURN)
        feedback = "\n\n".join(told)
        self._transcript = self._transcript.plus(Turn(reply=reply.spoken, feedback=feedback))


def _titled(reports: list[str]) -> list[str]:
    if len(reports) == 1:
        return [f"REPL output:\n{reports[0]}"]
    return [
        f"REPL output of block {number} of {len(reports)}:\n{report}"
        for number, report in enumerate(reports, start=1)
    ]
