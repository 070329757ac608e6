"""What a function of the caller's has to be to become a tool, and how cells are told of it."""

from __future__ import annotations

import functools
import keyword
from collections.abc import Callable
from typing import Any, Literal

import pytest
from support.sample_tools import Shop, bare, describe, gather, later, total

from orchestrator.engine.tools import RESERVED_NAMES, Tool, Toolbox
from orchestrator.errors import SettingsError
from sandbox_image.repl.asking import Asker
from sandbox_image.repl.language import builtins_for
from sandbox_image.repl.namespace import Namespace


def named(name: str) -> Tool:
    """Makes a tool of a name."""
    return Tool(function=total, name=name)


def bound_names() -> set[str]:
    """Returns the names that cells find before any tool is bound."""
    namespace = Namespace(Asker(pytest.fail))
    namespace.configure("guarded")
    return {name for name in namespace.names if not name.startswith("__")}


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES | bound_names()))
def test_name_that_every_cell_has_is_refused(name: str) -> None:
    """A tool cannot take the place of `llm_query` or `answer`; the list is the session's own."""
    with pytest.raises(SettingsError, match=f"tool '{name}': cells have another use"):
        Toolbox([named(name)])


@pytest.mark.parametrize("policy", ["guarded", "open"])
def test_name_of_a_builtin_is_refused(policy: Literal["guarded", "open"]) -> None:
    """`len` in a cell is Python's, whatever the language policy."""
    names = [name for name in builtins_for(policy) if not name.startswith("_")]
    assert "len" in names
    for name in names:
        with pytest.raises(SettingsError, match=f"tool '{name}': "):
            Toolbox([named(name)])


@pytest.mark.parametrize("name", ["context_0", "context_3", "history_12"])
def test_name_of_a_sessions_contexts_is_refused(name: str) -> None:
    """Later runs of a session bind such names."""
    with pytest.raises(SettingsError, match="cells have another use"):
        Toolbox([named(name)])


@pytest.mark.parametrize(
    "name",
    [
        "_hidden",
        "__class__",
        "a-b",
        "a b",
        "1a",
        "a.b",
        " ",
        "a\n",
        "\uff46ind",
        *keyword.kwlist[:5],
    ],
)
def test_name_that_no_cell_can_write_is_refused(name: str) -> None:
    """A name is what stands before a parenthesis in Python."""
    with pytest.raises(SettingsError, match="an identifier that begins with no `_`"):
        Toolbox([named(name)])


@pytest.mark.parametrize("name", ["context_of", "history_", "search", "données", "match", "FINALE"])
def test_other_names_are_taken(name: str) -> None:
    """The control: what resembles a reserved name is none."""
    box = Toolbox([named(name)])

    assert [tool.name for tool in box.offered] == [name]
    assert name in box


def test_two_tools_of_one_name_are_refused() -> None:
    """Which one a cell would reach is not for chance to decide."""
    with pytest.raises(SettingsError, match=r"twice there: total$"):
        Toolbox([total, describe, Tool(function=bare, name="total")])


def test_number_of_tools_is_bounded() -> None:
    """Each is described in a prompt that is paid for with every turn."""
    Toolbox(named(f"tool{number}") for number in range(64))
    with pytest.raises(SettingsError, match="at most 64 tools, not 65"):
        Toolbox(named(f"tool{number}") for number in range(65))


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (Tool(function=total, timeout_s=0.0), "tool 'total': timeout_s is above zero"),
        (Tool(function=total, timeout_s=float("nan")), "timeout_s is above zero"),
        (Tool(function="total", name="f"), "expected a function, got 'total'"),  # type: ignore[arg-type]  # many callers have no types
        (Tool(function=max, name="most"), "its parameters cannot be read"),
    ],
)
def test_tool_that_cannot_be_one_is_refused(tool: Tool, words: str) -> None:
    """The caller learns of it before a run, and which tool it is."""
    with pytest.raises(SettingsError, match=words):
        Toolbox([tool])


@pytest.mark.parametrize("hint", ["Missing", "json.missing", "not a type", "1 / 0", "Order["])
def test_type_hint_that_cannot_be_read_is_refused(hint: str) -> None:
    """A hint is code, and whatever it raises is a matter of the settings."""

    def search(value: object) -> object:
        return value

    search.__annotations__["value"] = hint
    with pytest.raises(SettingsError, match="tool 'search': its parameters cannot be read"):
        Toolbox([search])


def odd_defaults(
    plain: int = -1,
    text: str = "Ellipsis",
    nothing: str | None = None,
    *,
    made: object = object(),
    numbers: tuple[int, ...] = (1, 2),
) -> None:
    """Has defaults of all kinds."""
    del plain, text, nothing, made, numbers


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (total, "(price: float, count: int = 1) -> float"),
        (gather, "(*numbers: int, **words: str) -> list[typing.Any]"),
        (bare, "(value, /, other=None)"),
        (later, "(number: int) -> int"),
        (Shop(2).price, "(number: int) -> int"),
        (
            odd_defaults,
            (
                "(plain: int = -1, text: str = 'Ellipsis', nothing: str | None = None, *, "
                "made: object = ..., numbers: tuple[int, ...] = ...) -> None"
            ),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signature_is_shown_as_python_writes_it(
    function: Callable[..., Any], signature: str
) -> None:
    """A default that is no plain value is not spelt out: it may name addresses of the host."""
    [offered] = Toolbox([function]).offered

    assert offered.signature == signature


def test_description_is_the_docstring_or_what_the_caller_says() -> None:
    """The root model reads what the function is for, and never a novel."""
    box = Toolbox(
        [
            total,
            Tool(function=total, name="short", description="Multiplies."),
            Tool(function=total, name="long", description="\ud800" + "x" * 10_000),
            Tool(function=functools.partial(total, 2.0), name="twice"),
        ]
    )
    descriptions = {tool.name: tool.description for tool in box.offered}

    assert (
        descriptions["total"] == descriptions["twice"] == "Multiplies.\n\nAnd explains at length."
    )
    assert descriptions["short"] == "Multiplies."
    assert descriptions["long"] == "\ufffd" + "x" * 1_999
