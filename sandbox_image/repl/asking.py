"""What a cell can ask for: `llm_query` and its kin, as a cell sees them."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from sandbox_image.repl.channel import FrameKind, JsonObject
from sandbox_image.repl.contexts import outgoing
from sandbox_image.repl.mailbox import Mailbox
from sandbox_image.repl.query_errors import (
    PromptTooLargeError,
    QueryBatchError,
    QueryError,
    TooManyPromptsError,
    query_error,
)
from sandbox_image.repl.structured import AnswerForm

_ALIAS_CHARS = 64
#: What one call may send in all; the worker cuts it into wire messages of at most 4 MiB.
_BATCH_BYTES = 32 * 2**20

#: An answer, or the exception that stands for it. Structured answers are what JSON holds.
Result: TypeAlias = "Any"


class Asked(NamedTuple):
    """One call of a cell, as it is sent."""

    prompts: list[str]
    model: str | None = None
    kind: str = "plain"
    schema: str = ""
    tool: str = ""
    shapes: Sequence[JsonObject] = ()
    contexts: Sequence[str] = ()


class Asker:
    """Sends prompts through the worker. Safe from threads."""

    def __init__(self, mailbox: Callable[[], Mailbox]) -> None:
        """Takes a way to the current mailbox: a checkpoint that takes over has a new one."""
        self._mailbox = mailbox
        self._numbers = itertools.count(1)
        self._numbers_lock = threading.Lock()
        self._limits: JsonObject = {}
        self._cell_id = 0
        self._pid = os.getpid()

    def configure(self, limits: JsonObject) -> None:
        """Takes the limits in force, for early and clear errors; the orchestrator enforces them."""
        self._limits = limits

    def begin_cell(self, cell_id: int) -> None:
        """Asks for a cell of this process from now on."""
        self._cell_id = cell_id
        self._pid = os.getpid()

    def llm_query(
        self, prompt: str, model: str | None = None, json_schema: object = None
    ) -> Result:
        """Asks the sub-model and waits for its answer.

        Args:
            prompt: The whole prompt; the sub-model sees nothing else, so put the text in it.
            model: A name the session allows; the session's sub-model when left out.
            json_schema: A JSON Schema; the answer is then parsed, checked and returned as what JSON
                holds. One that does not fit is asked for once more.

        Raises:
            QueryError: There is no answer; the subclass says why.
            TypeError: `prompt` is not a string.
            ValueError: `json_schema` is no JSON Schema.
        """
        _check_prompt(prompt, "llm_query(prompt)")
        [outcome] = self._ask_in_form([prompt], model, json_schema)
        if isinstance(outcome, QueryError):
            raise outcome
        return outcome

    def llm_query_batched(
        self,
        prompts: Iterable[str],
        model: str | None = None,
        json_schema: object = None,
        *,
        return_errors: bool = False,
    ) -> list[Result]:
        """Asks many prompts at once and returns the answers in order.

        Args:
            prompts: The prompts; an empty list gives an empty list.
            model: A name the session allows; the session's sub-model when left out.
            json_schema: As for `llm_query`, for each answer.
            return_errors: Puts a `QueryError` in place of a missing answer instead of raising.

        Raises:
            QueryBatchError: Some prompts got no answer; `.answers` has the others.
            TypeError: `prompts` is not a list of strings.
            ValueError: `json_schema` is no JSON Schema.
        """
        batch = _batch_of(prompts, "llm_query_batched(prompts)")
        for index, prompt in enumerate(batch):
            _check_prompt(prompt, f"llm_query_batched(prompts): item {index}")
        if not batch:
            return []
        outcomes = self._ask_in_form(batch, model, json_schema)
        return _all_or_raise(outcomes, return_errors=return_errors)

    async def llm_query_async(
        self, prompt: str, model: str | None = None, json_schema: object = None
    ) -> Result:
        """Does what `llm_query` does, for code that uses asyncio; any number at the same time."""
        _check_prompt(prompt, "llm_query_async(prompt)")
        form = AnswerForm.of(json_schema)
        query_id = self._send(Asked([prompt], model, schema=form.text))
        [outcome] = self._outcomes(await self._mailbox().reply(query_id), 1)
        if isinstance(outcome, QueryError):
            raise outcome
        answer, complaint = form.read(outcome)
        if complaint:
            again = form.repair_prompt(prompt, outcome, complaint)
            if not self._fits(again):
                raise form.error(outcome, complaint)
            query_id = self._send(Asked([again], model, schema=form.text))
            [second] = self._outcomes(await self._mailbox().reply(query_id), 1)
            if isinstance(second, QueryError):
                raise form.error(outcome, complaint)  # the first reply's error says more
            answer, complaint = form.read(second)
            if complaint:
                raise form.error(second, complaint)
        return answer

    def rlm_query(self, prompt: str, context: object = None) -> str:
        """Has a run of its own answer, in its own sandbox, and waits for it.

        Args:
            prompt: The question; or, without `context`, the whole of what the run is about.
            context: What the run finds as its `context`: a str, a list or a dict.

        Raises:
            QueryError: There is no answer; the subclass says why.
            TypeError: `prompt` is not a string, or JSON cannot hold `context`.
        """
        _check_prompt(prompt, "rlm_query(prompt)")
        [outcome] = self._ask_children([prompt], [context])
        if isinstance(outcome, QueryError):
            raise outcome
        return str(outcome)

    def rlm_query_batched(
        self,
        prompts: Iterable[str],
        contexts: Sequence[object] | None = None,
        *,
        return_errors: bool = False,
    ) -> list[Result]:
        """Has several runs answer at the same time; answers come in order.

        Args:
            prompts: As for `rlm_query`; an empty list gives an empty list.
            contexts: One for each prompt; None where no run has one.
            return_errors: Puts a `QueryError` in place of a missing answer instead of raising.

        Raises:
            QueryBatchError: Some got no answer; `.answers` has the others.
            TypeError: `prompts` is not a list of strings, or `contexts` not one of as many.
        """
        batch = _batch_of(prompts, "rlm_query_batched(prompts)")
        for index, prompt in enumerate(batch):
            _check_prompt(prompt, f"rlm_query_batched(prompts): item {index}")
        wanted = [None] * len(batch) if contexts is None else contexts
        if not isinstance(wanted, (list, tuple)) or len(wanted) != len(batch):
            message = (
                f"rlm_query_batched(prompts, contexts) takes a list with one context for each of "
                f"the {len(batch)} prompts"
            )
            raise TypeError(message)
        if not batch:
            return []
        outcomes = self._ask_children(batch, wanted)
        return _all_or_raise(outcomes, return_errors=return_errors)

    def budget(self) -> JsonObject:
        """Returns what is left of the run; None where something has no limit."""
        left: JsonObject = self._call_tool("budget", (), {})
        return left

    def tool(self, name: str, signature: str, description: str) -> Callable[..., Any]:
        """Makes the function by which a cell calls one of the session's tools."""

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the tool has it
            return self._call_tool(name, args, kwargs)

        call.__name__ = call.__qualname__ = name
        call.__doc__ = f"{name}{signature}\n\n{description}"
        return call

    def _call_tool(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - as the tool has it
        try:
            arguments = json.dumps({"args": args, "kwargs": kwargs}, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"{name}() takes what JSON can hold: {error}"
            raise TypeError(message) from None
        query_id = self._send(Asked([arguments], kind="tool", tool=name))
        [outcome] = self._outcomes(self._mailbox().wait_for_reply(query_id), 1)
        if isinstance(outcome, QueryError):
            raise outcome
        return json.loads(outcome)

    def _ask_in_form(
        self, prompts: list[str], model: str | None, json_schema: object
    ) -> list[Result]:
        """Asks, and asks once more for answers that do not fit their form."""
        form = AnswerForm.of(json_schema)
        outcomes = self._ask(Asked(prompts, model, schema=form.text))
        if not form.text:
            return outcomes
        answers: list[Result] = []
        repairs: dict[int, str] = {}
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, QueryError):
                answers.append(outcome)
                continue
            answer, complaint = form.read(outcome)
            answers.append(form.error(outcome, complaint) if complaint else answer)
            again = form.repair_prompt(prompts[index], outcome, complaint)
            if complaint and self._fits(again):
                repairs[index] = again
        if repairs:
            replies = self._ask(Asked(list(repairs.values()), model, schema=form.text))
            for index, reply in zip(repairs, replies, strict=True):
                if isinstance(reply, QueryError):
                    continue  # the first reply's error says more
                answer, complaint = form.read(reply)
                answers[index] = form.error(reply, complaint) if complaint else answer
        return answers

    def _ask_children(
        self, prompts: list[str], contexts: Sequence[object]
    ) -> list[str | QueryError]:
        shapes, texts, questions = [], [], []
        for prompt, context in zip(prompts, contexts, strict=True):
            # Without a context the prompt is all there is, and says itself what to do.
            shape, text = outgoing(prompt if context is None else context)
            limit = self._limits.get("child_context_bytes", len(text))
            if len(text) > limit or len(text.encode(errors="replace")) > limit:
                raise PromptTooLargeError(
                    f"the context of a child run has at most {limit:,} bytes; pass a part of it"
                )
            shapes.append(shape)
            texts.append(text)
            questions.append("" if context is None else prompt)
        return self._ask(Asked(questions, kind="child_run", shapes=shapes, contexts=texts))

    def _ask(self, asked: Asked) -> list[str | QueryError]:
        query_id = self._send(asked)
        return self._outcomes(self._mailbox().wait_for_reply(query_id), len(asked.prompts))

    def _send(self, asked: Asked) -> str:
        """Sends a query and returns its id, under which the reply is to be waited for."""
        if not _is_alias(asked.model):
            message = (
                "the second argument is the name of a model; put question and text into one "
                'prompt: llm_query(f"{question}\\n\\n{text}")'
            )
            raise TypeError(message)
        if os.getpid() != self._pid:
            # Two processes that read one channel would take each other's answers.
            raise RuntimeError(
                "queries are sent by the cell's own process, not by processes it starts; use "
                "llm_query_batched(prompts), or threads, and hand the answers over"
            )
        self._check_sizes(asked.prompts, asked.contexts)
        with self._numbers_lock:
            number = next(self._numbers)
        query_id = f"{self._cell_id}-{number}"
        mailbox = self._mailbox()
        mailbox.expect_reply(query_id)
        mailbox.send(
            FrameKind.QUERY,
            {"query_id": query_id, "cell_id": self._cell_id, **asked._asdict()},
        )
        return query_id

    def _outcomes(self, reply: JsonObject | None, count: int) -> list[str | QueryError]:
        """Returns what a reply says of each prompt, and prints what it says beside the answers."""
        if reply is None:
            cancelled = "the cell ended before this query was answered"
            return [query_error("cancelled", cancelled) for _ in range(count)]
        for notice in dict.fromkeys(answer.get("notice", "") for answer in reply["answers"]):
            if notice:
                print(f"note: {notice}", file=sys.stderr)  # noqa: T201 - its place is the output
        return [
            answer["text"] if "text" in answer else query_error(answer["reason"], answer["message"])
            for answer in reply["answers"]
        ]

    def _fits(self, prompt: str) -> bool:
        return bool(len(prompt) <= self._limits.get("prompt_chars", len(prompt)))

    def _check_sizes(self, prompts: list[str], contexts: Sequence[str]) -> None:
        longest = max(len(prompt) for prompt in prompts)
        limit = self._limits.get("prompt_chars", longest)
        if longest > limit:
            raise PromptTooLargeError(
                f"a prompt has {longest:,} characters, at most {limit:,} are allowed; "
                "cut the text into smaller pieces"
            )
        limit = self._limits.get("batch_prompt_count", len(prompts))
        if len(prompts) > limit:
            raise TooManyPromptsError(
                f"{len(prompts):,} prompts in one call, at most {limit:,} are allowed; "
                "send fewer, longer prompts, or several batches"
            )
        total_bytes = sum(len(text.encode(errors="replace")) for text in (*prompts, *contexts))
        if total_bytes > _BATCH_BYTES:
            raise PromptTooLargeError(
                f"what this call sends has {total_bytes:,} bytes, at most {_BATCH_BYTES:,} "
                "are allowed; send several smaller batches"
            )


def _all_or_raise(outcomes: list[Result], *, return_errors: bool) -> list[Result]:
    if not return_errors and any(isinstance(outcome, QueryError) for outcome in outcomes):
        raise QueryBatchError.of(outcomes)
    return outcomes


def _is_alias(model: object) -> bool:
    return model is None or (isinstance(model, str) and len(model) <= _ALIAS_CHARS)


def _batch_of(prompts: Iterable[str], where: str) -> list[str]:
    if isinstance(prompts, (str, bytes, dict)):
        message = f"{where} takes a list of strings, not one {type(prompts).__name__}"
        raise TypeError(message)
    return list(prompts)


def _check_prompt(prompt: object, where: str) -> None:
    if not isinstance(prompt, str):
        message = f"{where} takes a string, not {type(prompt).__name__}; use str() or json.dumps()"
        raise TypeError(message)
    if not prompt:
        message = f"{where} is an empty string; put the question and the text into it"
        raise ValueError(message)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        message = (
            f"{where} has a lone surrogate at index {error.start}, which is not text; clean it "
            'with prompt.encode("utf-8", "replace").decode()'
        )
        raise ValueError(message) from None
