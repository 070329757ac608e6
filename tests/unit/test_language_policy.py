import ast
import sys

import pytest
from support.cell_corpus import namespace_for, run_cell, run_in

from sandbox_image.repl.language import CellRejectedError, PolicyError, compile_cell
from sandbox_image.repl.language_policy import GuardedPolicy

_BUILTINS_WITH_ADVICE = [
    ("exec('x = 1')", "define a function"),
    ("eval('1 + 1')", "ast.literal_eval"),
    ("compile('1', 'f', 'eval')", "re.compile"),
    ("input('name? ')", "llm_query(prompt)"),
    ("breakpoint()", "print(...)"),
    ("exit()", "FINAL(answer)"),
    ("quit()", "FINAL(answer)"),
    ("help(len)", "dir(obj)"),
]
_GADGETS = [
    "().__class__.__base__",
    "type(1).__mro__",
    "int.__bases__",
    "object.__subclasses__()",
    "(lambda: 0).__globals__",
    "(lambda: 0).__code__",
    "(lambda: 0).__closure__",
    "len.__self__",
    "[].__reduce_ex__(4)",
    "(i for i in ()).gi_frame",
    "(i for i in ()).gi_code",
    "ValueError().__traceback__.tb_frame",
    "__import__('re').__loader__",
    "__builtins__",
    "from functools import __builtins__ as names",
    "getattr(int, '__mro__')",
    "getattr(int, '__mro__', None)",
    "hasattr(len, '__self__')",
    "setattr(int, '__bases__', ())",
    "delattr(int, '__base__')",
    "object.__getattribute__(len, '__self__')",
    "__import__('operator').attrgetter('__class__.__mro__')(1)",
    "f'{(lambda: 0).__globals__}'",
]


@pytest.mark.parametrize(("source", "advice"), _BUILTINS_WITH_ADVICE)
def test_removed_builtin_says_what_to_write(source: str, advice: str) -> None:
    """A builtin that cannot work here is refused before the cell runs, with what to write."""
    with pytest.raises(CellRejectedError, match="PolicyError") as refused:
        compile_cell(source, policy="guarded", filename="<cell 1>")

    assert advice in refused.value.message


@pytest.mark.parametrize("source", [source for source, _ in _BUILTINS_WITH_ADVICE])
def test_removed_builtin_control(source: str) -> None:
    """The same cell compiles under `open`."""
    compile_cell(source, policy="open", filename="<cell 1>")


@pytest.mark.parametrize(("source", "advice"), _BUILTINS_WITH_ADVICE)
def test_removed_builtin_by_another_name_says_the_same(source: str, advice: str) -> None:
    """What cannot be seen before the cell runs is said when the builtin is called."""
    name = source.partition("(")[0]

    with pytest.raises(PolicyError) as refused:
        run_cell(f"other = {name}\nother()", "guarded")

    assert advice in str(refused.value)


def test_removed_builtin_by_another_name_control() -> None:
    """The same detour works under `open`."""
    assert run_cell("other = eval\nresult = other('1 + 1')", "open")["result"] == 2


def test_name_of_a_removed_builtin_is_free_for_the_cell() -> None:
    """A cell that defines `input` itself calls its own, also from a later cell."""
    namespace = namespace_for("guarded")
    run_in(namespace, "def input(prompt): return prompt.upper()", "guarded")
    run_in(namespace, "result = input('a')", "guarded")

    assert namespace["result"] == "A"


@pytest.mark.parametrize("source", _GADGETS)
def test_gadget_is_refused(source: str) -> None:
    """An attribute that leads into the interpreter is refused, written out or as literal text."""
    with pytest.raises(CellRejectedError, match="leads into the interpreter"):
        compile_cell(source, policy="guarded", filename="<cell 1>")


@pytest.mark.parametrize("source", _GADGETS)
def test_gadget_control(source: str) -> None:
    """The same cell compiles under `open`."""
    compile_cell(source, policy="open", filename="<cell 1>")


@pytest.mark.parametrize(
    "source",
    [
        "getattr(int, name)",
        "getattr(int, name, None)",
        "hasattr(int, name)",
        "setattr(type('T', (), {}), name, ())",
        "delattr(type('T', (), {}), name)",
        "list(map(getattr, [int], [name]))",
    ],
)
def test_computed_gadget_is_refused_when_it_runs(source: str) -> None:
    """An attribute asked for by a computed name is judged when it is asked for."""
    with pytest.raises(PolicyError, match="__bases__"):
        run_cell(f"name = '__ba' + 'ses__'\n{source}", "guarded")


def test_computed_gadget_control() -> None:
    """The same call reads the attribute under `open`."""
    names = run_cell("name = '__ba' + 'ses__'\nresult = getattr(int, name)", "open")

    assert names["result"] == (object,)


def test_text_that_lies_when_compared_is_judged_as_what_it_is() -> None:
    """A subclass of str cannot pass as another name."""
    source = (
        "class Liar(str):\n"
        "    def __eq__(self, other): return False\n"
        "    def __hash__(self): return 0\n"
        "getattr(int, Liar('__bas' + 'es__'))\n"
    )

    with pytest.raises(PolicyError, match="__bases__"):
        run_cell(source, "guarded")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("getattr(1, 'nope')", AttributeError),
        ("getattr(1, 5)", TypeError),
        ("getattr()", TypeError),
        ("setattr(1, 'x', 2)", AttributeError),
        ("delattr(1, 'x')", AttributeError),
    ],
)
def test_attribute_builtins_fail_as_in_python(source: str, error: type[Exception]) -> None:
    """The wrappers raise what Python raises for what the policy has no opinion on."""
    detour = source.replace("getattr", "(getattr)")
    for policy in ("guarded", "open"):
        with pytest.raises(error):
            run_cell(detour, policy)


def test_refusals_are_reported_together() -> None:
    """All that is wrong with a cell is told at once, in order, up to five, each with its line."""
    source = "import numpy\nx = 1\neval('1')\nimport pandas\nx.gi_frame\ninput()\nexit()"

    with pytest.raises(CellRejectedError) as refused:
        compile_cell(source, policy="guarded", filename="<cell 1>")

    message = refused.value.message
    positions = [message.index(f"line {line}:") for line in (1, 3, 4, 5, 6)]
    assert positions == sorted(positions)
    assert "line 7:" not in message
    assert "and 1 more" in message
    assert "    eval('1')" in message
    assert message.endswith("Nothing of this cell ran; change these lines and send it again.")


def test_same_mistake_twice_in_a_line_is_told_once() -> None:
    """A line is not reported again for what has been said of it."""
    with pytest.raises(CellRejectedError) as refused:
        compile_cell("eval('1') + eval('2')", policy="guarded", filename="<cell 1>")

    assert refused.value.message.count("line 1:") == 1


def test_refused_cell_runs_nothing() -> None:
    """A refusal on the last line keeps the first line from running."""
    namespace = namespace_for("guarded")

    with pytest.raises(CellRejectedError):
        run_in(namespace, "done = True\nimport numpy", "guarded")

    assert "done" not in namespace


def test_cells_do_not_share_what_they_do_to_their_builtins() -> None:
    """Each namespace has builtins of its own, so one session's changes are not the next one's."""
    first, second = namespace_for("guarded"), namespace_for("guarded")

    assert first["__builtins__"] is not second["__builtins__"]


def test_syntax_that_nobody_has_looked_at_is_refused() -> None:
    """A node that a newer Python brings is refused until the policy names it."""

    class BrandNew(ast.stmt):
        _fields = ()

    node = BrandNew()
    node.lineno, node.col_offset = 7, 0
    refusals = GuardedPolicy(frozenset()).refusals_in(ast.Module(body=[node], type_ignores=[]))

    assert [refusal.line for refusal in refusals] == [7]
    assert "BrandNew" in str(refusals[0].refusal)


def test_future_imports_of_the_policy_are_not_the_cells() -> None:
    """A cell's annotations are values, as in any module that asks for nothing else."""
    names = run_cell("def f(a: int): ...\nhint = f.__annotations__['a']", "guarded")

    assert names["hint"] is int


def test_long_chain_costs_no_recursion() -> None:
    """A chain the compiler takes is a chain the policy takes."""
    length = sys.getrecursionlimit() // 2
    source = "x = 0\nif x == 1: pass\n" + "".join(f"elif x == {n}: pass\n" for n in range(length))

    run_cell(source + "y = " + " + ".join("1" * length), "guarded")
