"""Runs one cell and says how it ended, in words for the root model."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import traceback
from types import TracebackType
from typing import Any, Literal

from sandbox_image.repl.language import CellRejectedError, compile_cell
from sandbox_image.repl.mailbox import Interrupts
from sandbox_image.repl.namespace import (
    AnswerTooLargeError,
    FinalAnswer,
    Namespace,
    type_name,
)

_CELL_PREFIX = "<cell "
#: `inspect.CO_COROUTINE`, without the time that importing it takes.
_IS_COROUTINE = 0x80
_REHEARSED = "<cell>"
_MESSAGE_CHARS = 8 * 1024 // 4  # 8 KiB on the wire, four bytes a character at worst
_TRACEBACK_CHARS = 16 * 1024 // 4
_HINTS: dict[type[BaseException], str] = {
    SystemExit: "a cell ends by itself; call FINAL(answer) to give the answer",
    MemoryError: "the cell needed more memory than the sandbox has; work on smaller pieces",
    KeyboardInterrupt: "the cell was interrupted",
}


class CellRunner:
    """Compiles and runs cells in one namespace."""

    def __init__(self, namespace: Namespace, interrupts: Interrupts) -> None:
        """Runs cells in `namespace`; interrupts reach a cell only while it runs."""
        self._namespace = namespace
        self._interrupts = interrupts
        self._policy: Literal["guarded", "open"] = "guarded"
        self._answer_bytes = 0

    def configure(self, *, policy: str, answer_bytes: int) -> None:
        """Takes what holds for every cell from now on."""
        self._policy = "open" if policy == "open" else "guarded"
        self._answer_bytes = answer_bytes

    def run(self, cell_id: int, source: str) -> dict[str, Any]:
        """Runs a cell; returns the parts of its result that only this process knows."""
        filename = f"{_CELL_PREFIX}{cell_id}>"
        self._namespace.begin_cell()
        # Tracebacks show the cell's own lines.
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = (len(source), None, lines, filename)
        self._interrupts.install()
        try:
            with self._interrupts.on():
                outcome, error = self._execute(source, filename)
        except KeyboardInterrupt as interrupt:
            outcome, error = "raised", _describe(interrupt)
        return self._result(outcome, error)

    def rehearse(self) -> dict[str, Any]:
        """Does what every cell does, without running anything of a cell's; returns a result.

        After a fork the first write to each page copies it, which takes longer than an empty cell:
        here it is done while nobody waits.
        """
        with contextlib.suppress(CellRejectedError):
            code = compile_cell(
                "pass", policy=self._policy, filename=_REHEARSED, known_names=self._namespace.names
            )
            exec(code, {})  # noqa: S102 - it does nothing
        self._put_process_back()
        self._namespace.restore()
        return _parts("succeeded", None, variables=self._namespace.variables())

    def _execute(self, source: str, filename: str) -> tuple[str, dict[str, str] | None]:
        """Compiles and runs a cell while interrupts are on: a source can keep the parser busy."""
        names = self._namespace.names
        try:
            code = compile_cell(source, policy=self._policy, filename=filename, known_names=names)
        except CellRejectedError as rejection:
            message = rejection.message[:_MESSAGE_CHARS]
            return "rejected", _error(rejection.type_name, message)
        try:
            if code.co_flags & _IS_COROUTINE:
                import asyncio  # noqa: PLC0415 - a third of the start of a process, and few await

                asyncio.run(eval(code, names))  # noqa: S307 - its purpose
            else:
                exec(code, names)  # noqa: S102 - its purpose
        except FinalAnswer:
            return "succeeded", None
        except BaseException as error:  # noqa: BLE001 - a cell may raise anything
            # Described while interrupts are on: an exception may have a `__str__` that never ends.
            return "raised", _describe(error)
        else:
            return "succeeded", None
        finally:
            # Whole, even when the interrupt comes right now.
            with self._interrupts.held():
                self._put_process_back()

    def _put_process_back(self) -> None:
        """Undoes what a cell may have done to the process and the next cell relies on."""
        for stream, original in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
            with contextlib.suppress(Exception):
                stream.flush()
            if original is not None and stream is not original:
                with contextlib.suppress(Exception):
                    original.flush()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        with contextlib.suppress(OSError):
            os.chdir("/tmp")  # noqa: S108 - the container's one writable directory

    def _result(self, outcome: str, error: dict[str, str] | None) -> dict[str, Any]:
        self._namespace.restore()
        try:
            with self._interrupts.on():
                content, is_ready = self._namespace.draft(self._answer_bytes)
        except BaseException as failure:  # noqa: BLE001 - str() of a cell's object may raise anything
            content, is_ready = "", False
            if error is None:
                outcome = "raised"
                error = _describe(failure)
                if not isinstance(failure, AnswerTooLargeError):
                    error["message"] = f'answer["content"] is not text: {error["message"]}'
        return _parts(
            outcome,
            error,
            content=content,
            is_ready=is_ready,
            variables=self._namespace.variables(),
        )


def _parts(
    outcome: str,
    error: dict[str, str] | None,
    *,
    variables: list[dict[str, Any]],
    content: str = "",
    is_ready: bool = False,
) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "error": error,
        "content": content,
        "is_ready": is_ready,
        "variables": variables,
    }


def _describe(error: BaseException) -> dict[str, str]:
    """Puts an exception into words, with the cell's own frames only.

    The platform's frames would tell a model nothing it can act on.
    """
    _drop_foreign_frames(error)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a cell's exception may have any __str__
        message = "(its text cannot be read)"
    hint = _HINTS.get(type(error))
    if hint is not None:
        message = f"{message} ({hint})" if message else hint
    try:
        text = "".join(traceback.TracebackException.from_exception(error).format())
    except Exception:  # noqa: BLE001 - likewise
        text = ""
    if len(text) > _TRACEBACK_CHARS:
        half = _TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n...\n{text[-half:]}"
    return _error(type_name(error), message[:_MESSAGE_CHARS], text)


def _error(type_name: str, message: str, traceback_text: str = "") -> dict[str, str]:
    return {"type_name": type_name, "message": message, "traceback": traceback_text}


def _drop_foreign_frames(error: BaseException) -> None:
    """Cuts frames outside cells from an exception and those it was raised from."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = _own_frames(current.__traceback__)
        pending += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    own = []
    while frames is not None:
        if frames.tb_frame.f_code.co_filename.startswith(_CELL_PREFIX):
            own.append(frames)
        frames = frames.tb_next
    linked: TracebackType | None = None
    for frame in reversed(own):
        linked = TracebackType(linked, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return linked
