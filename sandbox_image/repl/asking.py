"""`llm_query` and `llm_query_batched` as a cell sees them."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable

from sandbox_image.repl.channel import FrameKind, JsonObject
from sandbox_image.repl.mailbox import Mailbox
from sandbox_image.repl.query_errors import (
    PromptTooLargeError,
    QueryBatchError,
    QueryError,
    TooManyPromptsError,
    query_error,
)

_ALIAS_CHARS = 64
#: What one call may send in all; the worker cuts it into wire messages of at most 4 MiB.
_BATCH_BYTES = 32 * 2**20


class Asker:
    """Sends prompts to the sub-model through the worker. Safe from threads."""

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

    def llm_query(self, prompt: str, model: str | None = None) -> str:
        """Asks the sub-model and waits for its answer.

        Args:
            prompt: The whole prompt; the sub-model sees nothing else, so put the text in it.
            model: A name the session allows; the session's sub-model when left out.

        Raises:
            QueryError: There is no answer; the subclass says why.
            TypeError: `prompt` is not a string.
        """
        _check_prompt(prompt, "llm_query(prompt)")
        [outcome] = self._ask([prompt], model)
        if isinstance(outcome, QueryError):
            raise outcome
        return outcome

    def llm_query_batched(
        self, prompts: Iterable[str], model: str | None = None, *, return_errors: bool = False
    ) -> list[str] | list[str | QueryError]:
        """Asks many prompts at once and returns the answers in order.

        Args:
            prompts: The prompts; an empty list gives an empty list.
            model: A name the session allows; the session's sub-model when left out.
            return_errors: Puts a `QueryError` in place of a missing answer instead of raising.

        Raises:
            QueryBatchError: Some prompts got no answer; `.answers` has the others.
            TypeError: `prompts` is not a list of strings.
        """
        if isinstance(prompts, (str, bytes, dict)):
            kind = type(prompts).__name__
            message = f"llm_query_batched(prompts) takes a list of strings, not one {kind}"
            raise TypeError(message)
        batch = list(prompts)
        for index, prompt in enumerate(batch):
            _check_prompt(prompt, f"llm_query_batched(prompts): item {index}")
        if not batch:
            return []
        outcomes = self._ask(batch, model)
        if return_errors:
            return outcomes
        answers = [outcome for outcome in outcomes if isinstance(outcome, str)]
        if len(answers) < len(outcomes):
            raise QueryBatchError.of(outcomes)
        return answers

    def _ask(self, prompts: list[str], model: str | None) -> list[str | QueryError]:
        if not _is_alias(model):
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
        self._check_sizes(prompts)
        with self._numbers_lock:
            number = next(self._numbers)
        query_id = f"{self._cell_id}-{number}"
        mailbox = self._mailbox()
        mailbox.expect_reply(query_id)
        mailbox.send(
            FrameKind.QUERY,
            {"query_id": query_id, "cell_id": self._cell_id, "prompts": prompts, "model": model},
        )
        reply = mailbox.wait_for_reply(query_id)
        if reply is None:
            cancelled = "the cell ended before this query was answered"
            return [query_error("cancelled", cancelled) for _ in prompts]
        return [
            answer["text"] if "text" in answer else query_error(answer["reason"], answer["message"])
            for answer in reply["answers"]
        ]

    def _check_sizes(self, prompts: list[str]) -> None:
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
        total_bytes = sum(len(prompt.encode()) for prompt in prompts)
        if total_bytes > _BATCH_BYTES:
            raise PromptTooLargeError(
                f"the prompts of this call have {total_bytes:,} bytes, at most {_BATCH_BYTES:,} "
                "are allowed; send several smaller batches"
            )


def _is_alias(model: object) -> bool:
    return model is None or (isinstance(model, str) and len(model) <= _ALIAS_CHARS)


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
