"""What a refusal says: every sentence of the policy, whole.

A snapshot that differs is a change of what root models read: look at the difference, then write it
again with `REWRITE` below set to True for one run. The table of docs/usage.md is written likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from RestrictedPython.transformer import RestrictingNodeTransformer
from support.cell_corpus import run_cell
from support.refusals import Sample, refusal_of_new_syntax, refusals_of, samples

from sandbox_image.repl.language_builtins import (
    REFUSED_ATTRIBUTES,
    REFUSED_BUILTINS,
    REFUSED_NAMES,
    PolicyError,
)
from sandbox_image.repl.language_imports import (
    ALLOWED_MODULES,
    REFUSED_MEMBERS,
    REFUSED_MODULES,
)
from sandbox_image.repl.language_policy import GuardedPolicy
from sandbox_image.repl.language_refusals import Advice, Rule

REWRITE = False
_SNAPSHOT = Path(__file__).parent / "snapshots/refusals.txt"
_USAGE = Path(__file__).resolve().parents[2] / "docs/usage.md"
_BEGIN, _END = "<!-- refusals: begin -->\n", "<!-- refusals: end -->\n"

_SAMPLES = list(samples())


@pytest.mark.parametrize("sample", _SAMPLES, ids=lambda sample: sample.source.replace("\n", ";"))
def test_refusal_says_what_to_write_instead(sample: Sample) -> None:
    """Each entry of each table refuses, by its rule, and says what works in its place."""
    [refusal] = refusals_of(sample.source)

    assert refusal.rule is sample.rule
    assert refusal.what
    assert refusal.advice.instead.strip()
    assert str(refusal).endswith(refusal.advice.instead)


def test_new_syntax_says_what_to_write_instead() -> None:
    """So does the rule that no cell of today can meet."""
    refusal = refusal_of_new_syntax()

    assert (refusal.rule, refusal.what) == (Rule.SYNTAX, "NewSyntax")
    assert refusal.advice.instead


def test_every_rule_has_a_sample() -> None:
    """A rule that is added without a sample of what it says is noticed here."""
    assert {sample.rule for sample in _SAMPLES} | {Rule.SYNTAX} == set(Rule)


def test_restricted_python_says_nothing_of_its_own() -> None:
    """Every visitor that is inherited only goes on to the children; what has an opinion is ours."""
    ours = {f"visit_{kind.__name__}" for kind in GuardedPolicy._RULES}  # noqa: SLF001 - its extent
    inherited = {
        name: visitor.__code__.co_names
        for name, visitor in vars(RestrictingNodeTransformer).items()
        if name.startswith("visit_") and name not in ours
    }

    assert "visit_If" in inherited
    assert {name: calls for name, calls in inherited.items() if calls != _GOES_ON} == {}


_GOES_ON = ("node_contents_visit",)


@pytest.mark.parametrize(
    "source",
    [
        "name = 'numpy'\n__import__(name)",
        "__import__('urllib', fromlist=tuple(['request']))",
        "name = '__mro__'\ngetattr(int, name)",
        "other = eval\nother('1')",
    ],
)
def test_refusal_at_run_time_says_what_to_write_instead(source: str) -> None:
    """What could not be judged before the cell ran carries the same refusal in its error."""
    with pytest.raises(PolicyError) as refused:
        run_cell(source, "guarded")

    assert refused.value.refusal.advice.instead
    assert str(refused.value) == str(refused.value.refusal)


def test_refusal_can_be_raised_again_with_more_words() -> None:
    """`raise type(error)(...)` works as it does with the errors of Python."""
    source = (
        "name = 'numpy'\n"
        "try:\n    __import__(name)\n"
        "except ImportError as error:\n    again = str(type(error)(f'chunk 3: {error}'))\n"
    )

    assert str(run_cell(source, "guarded")["again"]).startswith("chunk 3: `import numpy`")


def test_sentences_are_those_of_the_snapshot() -> None:
    """Every sentence is in the tree, so a change of one is seen by who reviews it."""
    sentences = {str(refusal) for sample in _SAMPLES for refusal in refusals_of(sample.source)}
    text = "".join(
        f"{sentence}\n" for sentence in sorted({*sentences, str(refusal_of_new_syntax())})
    )
    if REWRITE:
        _SNAPSHOT.write_text(text, encoding="utf-8")

    assert text == _SNAPSHOT.read_text(encoding="utf-8")


def test_the_table_in_the_docs_is_the_policys() -> None:
    """docs/usage.md lists what is refused and what to write instead, neither more nor less."""
    page = _USAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(_BEGIN)
    table, _, tail = rest.partition(_END)
    if REWRITE:
        _USAGE.write_text(head + _BEGIN + _table() + _END + tail, encoding="utf-8")
        table = _table()

    assert table == _table()


def _table() -> str:
    members = {
        f"{module}.{member}": advice
        for module, of_module in REFUSED_MEMBERS.items()
        for member, advice in of_module.items()
    }
    calls = {f"{name}()": advice for name, advice in REFUSED_BUILTINS.items()}
    attributes = {f".{name}": advice for name, advice in REFUSED_ATTRIBUTES.items()}
    lines = [
        "Modules that a cell may import, with their submodules: "
        + ", ".join(f"`{name}`" for name in sorted(ALLOWED_MODULES))
        + ".\n",
        "| refused | because | write instead |",
        "| --- | --- | --- |",
        *_rows(REFUSED_MODULES),
        *_rows(members),
        *_rows(calls),
        *_rows(attributes),
        *_rows(REFUSED_NAMES),
    ]
    return "".join(f"{line}\n" for line in lines)


def _rows(table: Mapping[str, Advice]) -> Iterator[str]:
    names: dict[Advice, list[str]] = {}
    for name, advice in table.items():
        names.setdefault(advice, []).append(f"`{name}`")
    for advice, named in names.items():
        yield f"| {', '.join(named)} | {advice.why} | {advice.instead} |"
