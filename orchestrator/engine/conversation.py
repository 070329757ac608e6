"""Turns with the root model: ask, run the cells of its reply, tell it what came of them.

Without it there is no run: this is what makes a model and a Python session one thing.
"""

from __future__ import annotations

import time

from orchestrator.domain import (
    CellId,
    CellLimits,
    CellResult,
    EncodedContext,
    FinishReason,
    Message,
    ModelReply,
    OutputStream,
    RunLimits,
)
from orchestrator.engine.cell_report import cell_report
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.parsing import ParsedReply, parse_reply
from orchestrator.engine.prompts.figures import counted, duration
from orchestrator.engine.prompts.opening import brief_opening_text, opening_text
from orchestrator.engine.prompts.profiles import Profile
from orchestrator.engine.prompts.remarks import (
    EMPTY_ANSWER,
    LAST_TURN,
    last_request,
    repair,
    repetition,
    status,
)
from orchestrator.engine.run_record import RunRecord
from orchestrator.engine.transcript import Transcript, Turn
from orchestrator.events import CellEnded, CellPrinted, CellStarted, ReplyReceived, TurnStarted
from orchestrator.ports import ModelClient, Sandbox

_PROBE_TURN = 0


class Conversation:
    """One run's turns. Used once."""

    def __init__(  # noqa: PLR0913 - everything a turn touches, each named at the call
        self,
        *,
        root_model: ModelClient,
        profile: Profile,
        limits: RunLimits,
        cell_limits: CellLimits,
        answers_repeats_once: bool,
        ledger: Ledger,
        record: RunRecord,
    ) -> None:
        """Joins the parts; nothing is asked yet."""
        self._root_model = root_model
        self._profile = profile
        self._limits = limits
        self._cell_limits = cell_limits
        self._answers_repeats_once = answers_repeats_once
        self._ledger = ledger
        self._record = record
        self._transcript = Transcript(opening=())
        self._last_cell_id = CellId(0)
        self._reports_by_cells: dict[tuple[str, ...], tuple[int, list[str]]] = {}

    async def hold(self, sandbox: Sandbox, question: str, context: EncodedContext) -> FinishReason:
        """Takes turns until an answer is final or a limit other than time is reached.

        A final answer is the record's draft afterwards.

        Raises:
            ModelError: The root model did not answer.
            SandboxLostError: The sandbox died.
            ProtocolViolationError: The sandbox broke the contract.
        """
        await self._open(sandbox, question, context)
        for turn in range(1, self._limits.turns + 1):
            reply = await self._ask(turn)
            if await self._run_cells(sandbox, turn, reply):
                return FinishReason.ANSWERED
            if self._ledger.is_exhausted:
                return FinishReason.QUERY_LIMIT
        return FinishReason.TURN_LIMIT

    async def ask_for_best_answer(self, finish_reason: FinishReason) -> str:
        """Asks the root model once more, for a text; empty where it gives none or has seen nothing.

        Raises:
            ModelError: It did not answer.
        """
        if not self._transcript.turns:
            return ""
        limit = {
            FinishReason.TURN_LIMIT: counted(self._limits.turns, "turn"),
            FinishReason.QUERY_LIMIT: counted(self._limits.queries, "query"),
        }.get(finish_reason, duration(self._limits.time_s))
        reply = await self._complete(self._transcript.messages_with(last_request(limit)))
        parsed = parse_reply(reply.text, accepts_bare_code=False, was_cut=False)
        # One more cell is no answer, and would be mistaken for one.
        return "" if parsed.cells and not parsed.prose else parsed.spoken

    async def _open(self, sandbox: Sandbox, question: str, context: EncodedContext) -> None:
        profile = self._profile
        task = (
            brief_opening_text(question, context)
            if profile.is_brief
            else opening_text(question, context, limits=self._limits, cell_limits=self._cell_limits)
        )
        opening = (Message("system", profile.system), *profile.few_shot)
        if not profile.probe_source:
            self._transcript = Transcript(opening=(*opening, Message("user", task)))
            return
        self._record.tell(TurnStarted(turn=_PROBE_TURN))
        result = await self._run_cell(sandbox, _PROBE_TURN, profile.probe_source)
        self._transcript = Transcript(
            opening=(
                *opening,
                Message("user", profile.probe_opening),
                Message("assistant", f"```repl\n{profile.probe_source}\n```"),
                Message("user", f"REPL output:\n{self._report(result, share=1)}\n\n{task}"),
            )
        )

    async def _ask(self, turn: int) -> ParsedReply:
        self._record.tell(TurnStarted(turn=turn))
        started_s = time.monotonic()
        reply = await self._complete(self._transcript.messages())
        self._record.turn_count = turn
        parsed = parse_reply(
            reply.text,
            accepts_bare_code=self._profile.accepts_bare_code,
            was_cut=reply.was_cut,
        )
        self._record.tell(
            ReplyReceived(
                turn=turn,
                reply=reply,
                cell_count=len(parsed.cells),
                wall_s=time.monotonic() - started_s,
            )
        )
        return parsed

    async def _complete(self, messages: tuple[Message, ...]) -> ModelReply:
        with self._record.root_model.running():
            reply = await self._root_model.complete(
                messages, max_completion_tokens=self._profile.max_completion_tokens
            )
        self._ledger.record(self._root_model.name, reply)
        return reply

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
        for source in reply.cells:
            result = await self._run_cell(sandbox, turn, source)
            reports.append(self._report(result, share=len(reply.cells)))
            if result.answer.is_ready and result.answer.content.strip():
                return True
            is_blank_final = result.answer.is_ready
        remarks = [EMPTY_ANSWER] if is_blank_final else []
        earlier_turn, earlier_reports = self._reports_by_cells.get(reply.cells, (0, []))
        if earlier_reports == reports:
            remarks.append(repetition(earlier_turn))
        self._reports_by_cells[reply.cells] = (turn, reports)
        self._add_turn(turn, reply, [*_titled(reports), *remarks])
        return False

    async def _run_cell(self, sandbox: Sandbox, turn: int, source: str) -> CellResult:
        # A sandbox numbers its cells in order and tells the number with the result; the display
        # needs it before.
        cell_id = CellId(self._last_cell_id + 1)
        self._record.tell(CellStarted(turn=turn, cell_id=cell_id, source=source))

        def pass_on(stream: OutputStream, data: bytes) -> None:
            self._record.tell(CellPrinted(cell_id=cell_id, stream=stream, data=data))

        with self._record.cells.running():
            result = await sandbox.run_cell(
                source, timeout_s=self._cell_limits.wall_s, on_output=pass_on
            )
        self._last_cell_id = result.cell_id
        # An empty text never replaces a draft: the answer of a session whose variables were lost
        # is empty too.
        self._record.draft = result.answer.content or self._record.draft
        self._record.tell(CellEnded(turn=turn, result=result))
        return result

    def _report(self, result: CellResult, *, share: int) -> str:
        return cell_report(
            result,
            output_chars=self._profile.output_chars // share,
            timeout_s=self._cell_limits.wall_s,
            is_brief=self._profile.is_brief,
            answers_repeats_once=self._answers_repeats_once,
        )

    def _add_turn(self, turn: int, reply: ParsedReply, told: list[str]) -> None:
        left_turn_count = self._limits.turns - turn
        if not self._profile.is_brief:
            told.append(
                status(
                    left_turn_count=left_turn_count,
                    left_query_count=self._ledger.left_query_count,
                    left_s=self._ledger.left_s,
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
