"""What cells of a run can ask for beside plain queries, held against every implementation."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from support.fake_sandbox import CellRun
from support.sandbox_implementations import DRAFT, NOTHING, Cell, Implementation, opened, run

from orchestrator.context import encode_context
from orchestrator.domain import (
    Context,
    ContextKind,
    Draft,
    NotedAnswer,
    OfferedTool,
    Outcome,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryKind,
    QueryRequest,
    RunOffer,
    VariableState,
)

ORDER = OfferedTool(name="order", signature="(order_id: int) -> str", description="Looks it up.")
#: More than one message of the contract holds.
LONG = "naïve 🙂 " * 700_000


async def _call(run: CellRun) -> None:
    [answer] = [await run.call_tool("order", '{"args": [7], "kwargs": {"is_urgent": true}}')]
    run.print(str(json.loads(str(answer))))


async def _ask_child(run: CellRun) -> None:
    run.print(str(await run.ask_child("how many?", encode_context("one two"))))


async def _ask_child_of_much(run: CellRun) -> None:
    run.print(str(await run.ask_child("how long?", encode_context(LONG))))


CALL = Cell(source="print(order(7, is_urgent=True))", fake=_call)
ASK_CHILD = Cell(source="print(rlm_query('how many?', 'one two'))", fake=_ask_child)
ASK_CHILD_OF_MUCH = Cell(
    source="print(rlm_query('how long?', 'naïve 🙂 ' * 700_000))", fake=_ask_child_of_much
)


class Recorder:
    """Answers everything with one answer, and keeps what it was asked."""

    def __init__(self, answer: QueryAnswer) -> None:
        """Answers with `answer` from now on."""
        self.answer_with = answer
        self.asked: list[QueryRequest] = []

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        self.asked.append(request)
        return [self.answer_with] * len(request.prompts)


async def test_tool_is_called_by_its_name(implementation: Implementation) -> None:
    """Arguments reach the host as JSON, and the result the cell as what JSON says."""
    queries = Recorder('{"state": "sent"}')
    async with opened(implementation, CALL, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer(tools=(ORDER,)))
        result = await run(sandbox, CALL)

    [asked] = queries.asked
    assert (asked.kind, asked.tool_name) == (QueryKind.TOOL, "order")
    assert json.loads(asked.prompts[0]) == {"args": [7], "kwargs": {"is_urgent": True}}
    assert str(result.stdout) == "{'state': 'sent'}\n"


async def test_child_run_is_asked_for_with_its_context(implementation: Implementation) -> None:
    """Question and context reach the host as two things."""
    queries = Recorder("2")
    async with opened(implementation, ASK_CHILD, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        result = await run(sandbox, ASK_CHILD)

    [asked] = queries.asked
    context = encode_context("one two")
    assert (asked.kind, asked.prompts) == (QueryKind.CHILD_RUN, ("how many?",))
    assert asked.child_context is not None
    assert asked.child_context.data == context.data
    assert asked.child_context.sha256_hex == context.sha256_hex
    assert (asked.child_context.kind, asked.child_context.total_chars) == (ContextKind.TEXT, 7)
    assert str(result.stdout) == "2\n"


async def test_context_of_a_child_run_may_be_long(implementation: Implementation) -> None:
    """What does not fit one message comes in several, and arrives whole."""
    queries = Recorder("long")
    async with opened(implementation, ASK_CHILD_OF_MUCH, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        result = await run(sandbox, ASK_CHILD_OF_MUCH)

    [asked] = queries.asked
    assert asked.child_context is not None
    assert asked.child_context.data == LONG.encode()
    assert str(result.stdout) == "long\n"


async def test_answer_of_the_run_before_is_not_that_of_the_next(
    implementation: Implementation,
) -> None:
    """A run begins without a draft, whatever the one before has left."""
    async with opened(implementation, DRAFT, NOTHING) as sandbox:
        await sandbox.begin_run(RunOffer())
        drafted = (await run(sandbox, DRAFT)).answer
        await sandbox.begin_run(RunOffer())
        after = (await run(sandbox, NOTHING)).answer

    assert (drafted, after) == (Draft(content="so far"), Draft())


CHILD_CONTEXTS: dict[str, tuple[Context, ContextKind]] = {
    "text": ("one", ContextKind.TEXT),
    "texts": (["one", "two"], ContextKind.TEXTS),
    "documents": ([{"name": "a.txt", "text": "one"}], ContextKind.DOCUMENTS),
    "messages": ([{"role": "user", "content": "hello"}], ContextKind.MESSAGES),
    "dict": ({"a": [1, None]}, ContextKind.JSON),
}


@pytest.mark.parametrize(("context", "kind"), CHILD_CONTEXTS.values(), ids=CHILD_CONTEXTS)
async def test_kinds_of_child_contexts(
    implementation: Implementation, context: Context, kind: ContextKind
) -> None:
    """A cell's value reaches a child run as what a caller's would."""
    queries = Recorder("ok")
    async with opened(implementation, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        await run(sandbox, f"rlm_query('q', {context!r})")

    [asked] = queries.asked
    encoded = encode_context(context)
    sent = asked.child_context
    assert sent is not None
    assert (sent.kind, sent.part_lengths, sent.total_chars) == (
        kind,
        encoded.part_lengths,
        encoded.total_chars,
    )
    assert json.loads(sent.data) if kind is not ContextKind.TEXT else sent.data.decode() == context


async def test_schema_goes_with_the_prompt_and_the_answer_is_parsed(
    implementation: Implementation,
) -> None:
    """A structured answer is what JSON says, and the host is told what it has to fit."""
    queries = Recorder('{"count": 3}')
    async with opened(implementation, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        result = await run(
            sandbox, "print(llm_query('q', json_schema={'type': 'object'})['count'] + 1)"
        )

    [asked] = queries.asked
    assert json.loads(asked.json_schema) == {"type": "object"}
    assert str(result.stdout) == "4\n"


async def test_answer_that_never_fits_its_form_is_an_error(implementation: Implementation) -> None:
    """It is asked for once more, with what was wrong, and then the cell is told."""
    queries = Recorder("three")
    async with opened(implementation, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        result = await run(
            sandbox,
            "try:\n    llm_query('q', json_schema={'type': 'integer'})\n"
            "except QueryError as error:\n    print(type(error).__name__)",
        )

    first, second = queries.asked
    assert first.prompts == ("q",)
    assert second.prompts[0].startswith("q")
    assert "three" in second.prompts[0]
    assert str(result.stdout) == "AnswerFormatError\n"


async def test_notice_is_printed_beside_the_answer(implementation: Implementation) -> None:
    """What the host has to say of an answer is not part of it."""
    queries = Recorder(NotedAnswer(text="4", notice="cut off"))
    async with opened(implementation, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        result = await run(sandbox, "print(llm_query('q'))")

    assert (str(result.stdout), str(result.stderr)) == ("4\n", "note: cut off\n")


async def test_failure_of_a_tool_is_an_error_of_the_cell(implementation: Implementation) -> None:
    """The host's sentence is the error's, and other cells go on."""
    failure = QueryFailure(reason=QueryFailureReason.TOOL_FAILED, message="no such order")
    async with opened(implementation, queries=Recorder(failure)) as sandbox:
        await sandbox.begin_run(RunOffer(tools=(ORDER,)))
        raised = await run(sandbox, "order(7)")
        after = await run(sandbox, "print('on')")

    assert raised.error is not None
    assert (raised.error.type_name, raised.error.message) == ("ToolError", "no such order")
    assert str(after.stdout) == "on\n"


async def test_budget_is_asked_of_the_host(implementation: Implementation) -> None:
    """What is left is known where it is counted."""
    queries = Recorder('{"queries": 3}')
    async with opened(implementation, queries=queries) as sandbox:
        await sandbox.begin_run(RunOffer())
        result = await run(sandbox, "print(budget()['queries'])")

    assert queries.asked[0].tool_name == "budget"
    assert str(result.stdout) == "3\n"


async def test_tools_are_those_of_the_run(implementation: Implementation) -> None:
    """A tool that this run does not offer is not there, and one that it offers always is."""
    async with opened(implementation, queries=Recorder('"sent"')) as sandbox:
        await sandbox.begin_run(RunOffer(tools=(ORDER,)))
        await run(sandbox, "order = None")
        restored = await run(sandbox, "print(order(7))")
        died = await run(sandbox, "import os; os.abort()")
        after_death = await run(sandbox, "print(order(7))")
        await sandbox.begin_run(RunOffer())
        without = await run(sandbox, "order(7)")

    assert str(restored.stdout) == str(after_death.stdout) == "sent\n"
    assert (died.outcome, died.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert without.error is not None
    assert without.error.type_name == "NameError"


async def test_context_has_as_many_names_as_it_is_given(implementation: Implementation) -> None:
    """One value under several names is one value, and is there after a cell that died."""
    async with opened(implementation) as sandbox:
        await sandbox.bind_context("context_0", encode_context("text"), aliases=("context",))
        result = await run(sandbox, "print(context, context is context_0)")
        await run(sandbox, "import os; os.abort()")
        after_death = await run(sandbox, "print(context, context is context_0)")

    assert str(result.stdout) == str(after_death.stdout) == "text True\n"
    assert [variable.name for variable in result.variables] == ["context"]
