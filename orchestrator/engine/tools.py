"""The caller's own functions, as cells may call them.

Without it a caller would have to write what it knows into the context, or hand its functions over
as source, secrets included. Here a function stays on the host: a cell sends its arguments as JSON,
they are checked against the function's own type hints, and what it returns goes back as JSON.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
import json
import keyword
import logging
import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydantic import ConfigDict, ValidationError, validate_call
from pydantic_core import PydanticSerializationError, to_json

from orchestrator.domain import OfferedTool, QueryFailure, QueryFailureReason
from orchestrator.engine.sendable import sendable
from orchestrator.errors import SettingsError, ToolError

_logger = logging.getLogger(__name__)

#: Names that a cell finds in every run; a tool may have none of them.
RESERVED_NAMES: Final = frozenset(
    {
        "AnswerFormatError",
        "BudgetExhaustedError",
        "FINAL",
        "FINAL_VAR",
        "ModelFailedError",
        "ModelRefusedError",
        "PromptTooLargeError",
        "QueryBatchError",
        "QueryCancelledError",
        "QueryError",
        "RecursionTooDeepError",
        "SHOW_VARS",
        "SUBMIT",
        "ToolError",
        "TooManyPromptsError",
        "answer",
        "budget",
        "context",
        "false",
        "history",
        "llm_query",
        "llm_query_async",
        "llm_query_batched",
        "null",
        "rlm_query",
        "rlm_query_batched",
        "true",
    }
)
#: Longer descriptions and signatures would fill the prompt, which is paid for with each turn.
_MAX_DESCRIPTION_CHARS = 2_000
_MAX_SIGNATURE_CHARS = 500
_MAX_TOOLS = 64
#: What a result may have; more does not fit a message to the sandbox.
_MAX_RESULT_BYTES = 2 * 2**20
_SHOWN_MISTAKES = 5
_SHOWN_CHARS = 300

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function of the caller's that cells may call by its name.

    Attributes:
        function: Takes and returns what JSON can hold, or what pydantic can make of JSON by the
            function's type hints. May be asynchronous. A synchronous one runs in a thread of its
            own. Raises `ToolError` to tell the cell something; the text of any other exception
            stays on the host.
        name: As cells call it; the function's own if empty.
        description: What it does, for the root model; the function's docstring if empty.
        timeout_s: Wall-clock seconds one call may take. A synchronous function cannot be ended: it
            is no longer waited for, and its thread goes on.
    """

    function: Callable[..., Any]
    name: str = ""
    description: str = ""
    timeout_s: float = 60.0


class _BoundTool:
    """A tool whose name and types have been checked."""

    def __init__(self, tool: Tool) -> None:
        self.name = tool.name or getattr(tool.function, "__name__", "")
        _check_name(self.name)
        if not callable(tool.function):
            raise SettingsError(f"tool {self.name!r}: expected a function, got {tool.function!r}")
        if not tool.timeout_s > 0:
            raise SettingsError(f"tool {self.name!r}: timeout_s is above zero")
        self._function = tool.function
        self.timeout_s = tool.timeout_s
        self.is_async = _is_async(tool.function)
        try:
            signature = inspect.signature(tool.function, eval_str=True)
            self._check = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(
                _stand_in(tool.function, signature)
            )
        except Exception as error:  # type hints are code, and may raise anything
            raise SettingsError(
                f"tool {self.name!r}: its parameters cannot be read: {error}"
            ) from error
        self._parameters = tuple(signature.parameters)
        description = tool.description or inspect.getdoc(_inner(tool.function)) or ""
        self.offered = OfferedTool(
            name=self.name,
            signature=sendable(_shown(signature))[:_MAX_SIGNATURE_CHARS],
            description=sendable(description)[:_MAX_DESCRIPTION_CHARS],
        )

    def checked(self, arguments: Arguments) -> Arguments | str:
        """Returns arguments as the function's type hints have them, or what is wrong with them."""
        args, kwargs = arguments
        try:
            checked: Arguments = self._check(*args, **kwargs)
        except ValidationError as error:
            return f"{self.name}{self.offered.signature}: {self._mistakes(error)}"
        except RecursionError:
            return f"{self.name}: its arguments are nested too deeply"
        return checked

    def call(self, arguments: Arguments) -> Any:  # noqa: ANN401 - what a caller's function returns
        """Calls the function."""
        args, kwargs = arguments
        return self._function(*args, **kwargs)

    def _mistakes(self, error: ValidationError) -> str:
        found = [
            f"{self._place(detail['loc'])}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_context=False)
        ]
        rest = len(found) - _SHOWN_MISTAKES
        more = f"; and {rest} more" if rest > 0 else ""
        return "; ".join(each[:_SHOWN_CHARS] for each in found[:_SHOWN_MISTAKES]) + more

    def _place(self, steps: tuple[int | str, ...]) -> str:
        """Returns where in the arguments something is; positional ones have numbers at first."""
        if steps and isinstance(steps[0], int) and steps[0] < len(self._parameters):
            steps = (self._parameters[steps[0]], *steps[1:])
        return ".".join(map(str, steps)) or "arguments"


class Toolbox:
    """The tools of a run."""

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        """Checks names and types of all tools; a bare function is a tool with defaults.

        Raises:
            SettingsError: A name is taken, reserved or no identifier, or parameters cannot be read.
        """
        bound = [_BoundTool(t if isinstance(t, Tool) else Tool(function=t)) for t in tools]
        self._tools: Mapping[str, _BoundTool] = {tool.name: tool for tool in bound}
        if len(self._tools) < len(bound):
            names = [tool.name for tool in bound]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SettingsError(f"tools have names of their own; twice there: {', '.join(twice)}")
        if len(bound) > _MAX_TOOLS:
            raise SettingsError(f"a run has at most {_MAX_TOOLS} tools, not {len(bound)}")

    @property
    def offered(self) -> tuple[OfferedTool, ...]:
        """What cells and the root model are told."""
        return tuple(tool.offered for tool in self._tools.values())

    def __contains__(self, name: object) -> bool:
        """Whether a tool has that name."""
        return name in self._tools

    async def call(self, name: str, arguments_json: str) -> str | QueryFailure:
        """Calls a tool with what a cell sent; returns its result as JSON, or why there is none.

        Cancelling the call cancels an asynchronous function.
        """
        tool = self._tools[name]
        sent = _arguments_of(arguments_json)
        if sent is None:
            return _failed(f"{name}: its arguments are not JSON as cells send it")
        limit = asyncio.timeout(tool.timeout_s)
        try:
            # Types of the caller's own run code of theirs, so they are within the `try` as well.
            arguments = tool.checked(sent)
            if isinstance(arguments, str):
                return _failed(arguments)
            async with limit:
                return await _result_of(tool, arguments)
        except ToolError as error:
            return _failed(f"{name}: {str(error)[:_MAX_DESCRIPTION_CHARS]}")
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return _failed(f"{name} gave no result within {tool.timeout_s:g} s")
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            # A caller's function may raise anything, `SystemExit` and a cancellation that is none
            # of ours among them.
            return _unexpected(name, error)


def _check_name(name: str) -> None:
    # Python reads a name in one form of several (PEP 3131), and would look for that one.
    is_readable = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    if not is_readable or keyword.iskeyword(name) or name.startswith("_"):
        raise SettingsError(f"tool {name!r}: a name is an identifier that begins with no `_`")
    is_indexed = name.startswith(("context_", "history_")) and name.rpartition("_")[2].isdigit()
    if name in RESERVED_NAMES or is_indexed or hasattr(builtins, name):
        raise SettingsError(f"tool {name!r}: cells have another use for this name; choose another")


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    # The docstring of a partial function is that of `functools.partial`.
    return function.func if isinstance(function, functools.partial) else function


def _is_async(function: Callable[..., Any]) -> bool:
    # An object that can be called is no function; its class's `__call__` is one.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class _Unsaid:
    """A default that is not spelt out."""

    def __repr__(self) -> str:
        return "..."


def _shown(signature: inspect.Signature) -> str:
    """Returns a signature for the root model; a default that is no plain value is not spelt out."""
    parameters = [
        parameter
        if parameter.default is parameter.empty
        or isinstance(parameter.default, str | int | float | None)
        else parameter.replace(default=_Unsaid())
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters))


def _stand_in(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Returns a function with the parameters of another, which hands them back.

    Arguments are checked on it: what the function itself raises is told apart that way.
    """

    def as_they_are(*args: Any, **kwargs: Any) -> Arguments:  # noqa: ANN401 - any function's
        return args, kwargs

    # Not `functools.wraps`: a partial function, or an object that can be called, has no type hints
    # of its own to be copied.
    as_they_are.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it
    as_they_are.__annotations__ = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if parameter.annotation is not parameter.empty
    }
    as_they_are.__module__ = getattr(function, "__module__", as_they_are.__module__)
    return as_they_are


def _arguments_of(text: str) -> Arguments | None:
    """Returns the arguments that a cell sent; None where it sent something else. Untrusted."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    args, kwargs = value.get("args", []), value.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return None
    return tuple(args), kwargs


async def _result_of(tool: _BoundTool, arguments: Arguments) -> str | QueryFailure:
    if not tool.is_async:
        return await _in_thread(tool.name, lambda: tool.call(arguments))
    result = await tool.call(arguments)
    # A large result takes a while to become JSON, and other runs wait meanwhile.
    return await _in_thread(tool.name, lambda: result)


async def _in_thread(name: str, call: Callable[[], object]) -> str | QueryFailure:
    """Calls what blocks, and makes JSON of it, in a thread that no process's end waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str | QueryFailure] = loop.create_future()

    def settle(outcome: str | QueryFailure | Exception) -> None:
        if done.done():
            return
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    def work() -> None:
        outcome: str | QueryFailure | Exception
        try:
            outcome = _encoded(name, call())
        except StopIteration as stop:
            outcome = RuntimeError(f"StopIteration({stop.value!r})")  # no future takes it
        except BaseException as raised:  # noqa: BLE001 - the cell must not wait for ever
            outcome = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
        try:
            loop.call_soon_threadsafe(settle, outcome)
        except RuntimeError:
            _logger.debug("tool %s ended after its run", name)

    # Not the loop's own executor: a loop that closes waits for it, and this may hang for good.
    threading.Thread(target=work, name=f"tool-{name}", daemon=True).start()
    return await done


def _encoded(name: str, result: object) -> str | QueryFailure:
    try:
        data = to_json(result, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        _logger.warning("tool %s returned what is no JSON: %s", name, error)
        return _failed(f"{name} returned a {type(result).__name__}, which JSON cannot hold")
    if len(data) > _MAX_RESULT_BYTES:
        return QueryFailure(
            reason=QueryFailureReason.TOO_LARGE,
            message=f"{name} returned {len(data):,} bytes, at most {_MAX_RESULT_BYTES:,} are taken;"
            " ask it for less at a time",
        )
    return data.decode()


def _unexpected(name: str, error: BaseException) -> QueryFailure:
    # Its text may name paths, addresses and keys of the host.
    _logger.warning("tool %s raised", name, exc_info=error)
    return _failed(f"{name} failed with {type(error).__name__}; go on without it, or ask otherwise")


def _failed(message: str) -> QueryFailure:
    return QueryFailure(reason=QueryFailureReason.TOOL_FAILED, message=message)
