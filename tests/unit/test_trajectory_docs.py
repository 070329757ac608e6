"""The page about trajectories is in step with the code: every event, every field, every example."""

from __future__ import annotations

import json
import re
import types
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import pytest
from support.event_values import RECORDED_EVENTS, classes_in
from support.trajectories import (
    LOOK,
    SYSTEM,
    Chronicle,
    RunTeller,
    fenced,
    rich_run,
    told,
    write,
)

from orchestrator.controls import Controls
from orchestrator.domain import Printed, Variable
from orchestrator.trajectory.elision import TEXT_FIELDS
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.lines import TRAJECTORY_VERSION
from orchestrator.trajectory.rl_episodes import rl_episode
from orchestrator.trajectory.sft_rows import sft_rows
from orchestrator.trajectory.visualizer_log import visualizer_rows

PAGE = (Path(__file__).resolve().parents[2] / "docs/trajectories.md").read_text("utf-8")
PARTS = [
    part
    for part in dict.fromkeys(part for kind in RECORDED_EVENTS for part in classes_in(kind))
    if part not in {*RECORDED_EVENTS, *classes_in(Controls)}
]
WORDS = {str: "text", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def heading(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def table(name: str) -> dict[str, tuple[str, str]]:
    """Returns the fields that stand under a heading, with type and meaning."""
    section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, name
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|([^|]*)\|$", section[1], re.MULTILINE)
    return {field: (kind.strip(), meaning.strip()) for field, kind, meaning in rows}


def word(kind: Any) -> str:  # noqa: ANN401 - types as values
    """Returns what the page calls a type."""
    kind = kind.__supertype__ if isinstance(kind, NewType) else kind
    arguments = get_args(kind)
    match get_origin(kind):
        case origin if origin in {Union, types.UnionType}:
            return " or ".join(word(argument) for argument in arguments)
        case origin if origin is tuple:
            return f"list of {word(arguments[0])}"
        case origin if origin is dict:
            return f"object of {word(arguments[1])}"
    if is_dataclass(kind) and isinstance(kind, type):
        link = f"[{heading(kind)}](#{heading(kind)})"
        return "[statement](controls.md)" if kind is Controls else link
    return "name" if values_of(kind) else WORDS[kind]


def values_of(kind: Any) -> set[str]:  # noqa: ANN401 - likewise
    """Returns the values of a closed set, none for any other type."""
    if get_origin(kind) is Literal:
        return set(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {value.value for value in kind}
    return set()


@pytest.mark.parametrize("kind", [*RECORDED_EVENTS, *PARTS], ids=heading)
def test_every_field_is_described(kind: type) -> None:
    """With its type, its values where they are a closed set, and whether it can be left out."""
    described, hints = table(heading(kind)), get_type_hints(kind)

    assert list(described) == [field.name for field in fields(kind)]
    for name, (shown, meaning) in described.items():
        is_text = name in TEXT_FIELDS.get(kind, ())
        assert shown == word(hints[name]) + (" †" if is_text else ""), name
        assert values_of(hints[name]) <= set(re.findall(r"`(\w+)`", meaning)), name


def test_nothing_is_described_that_is_not_there() -> None:
    """An event that is gone is gone from the page."""
    described = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))

    assert described == {heading(kind) for kind in (*RECORDED_EVENTS, *PARTS)}


def test_page_says_the_version_and_every_key_of_a_line(tmp_path: Path) -> None:
    """What every line has beside its event."""
    line = json.loads(write(tmp_path / "t.jsonl", rich_run()).read_text().splitlines()[0])
    event_keys = {field.name for field in fields(RECORDED_EVENTS[0])}

    assert f"| `version` | of this format: {TRAJECTORY_VERSION} |" in PAGE
    for key in line.keys() - event_keys:
        assert f"| `{key}` |" in PAGE


def example(form: str) -> list[Any]:
    found = re.search(rf"<!-- example: {form} -->\n```json\n(.*?)\n```\n", PAGE, re.DOTALL)
    assert found is not None
    return [json.loads(line) for line in found[1].splitlines()]


def shape(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns the keys of JSON and of what is in it; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return None


def small_run() -> Chronicle:
    """A run as the examples show one."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "3f2a91c07d4e")
    run.begin()
    run.ready()
    run.turn((SYSTEM, told("Question:\nq")), fenced(LOOK))
    run.cell(LOOK)
    run.answer(run.ask("p"), "a")
    run.end_cell(
        stdout=Printed(head="x", total_bytes=1),
        variables=(Variable(name="hits", type_name="list", size=3),),
    )
    run.end("a")
    return chronicle


def test_examples_are_as_rows_are() -> None:
    """Whoever writes a program after the page writes it after what is exported."""
    [run] = runs_of(small_run().records)

    assert shape(example("sft")) == shape(sft_rows(run))
    assert shape(example("rl")) == shape([rl_episode(run)])
    metadata, iteration = visualizer_rows(run)
    assert [shape(row) for row in example("visualizer")] == [shape(metadata), shape(iteration)]


def test_samples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample in Python works as it stands."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run.jsonl", rich_run())
    samples = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

    assert len(samples) == 2
    for sample in samples:
        exec(compile(sample, "docs/trajectories.md", "exec"), {})  # noqa: S102 - our own page
