"""Every parser of hostile bytes and of model text, over what fuzzing has found and over more of it.

`make fuzz` looks for new inputs; here what it found is replayed, and changed a little.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzz_targets import FUZZ, FuzzTarget, fuzz_targets

_TARGETS = fuzz_targets()
_MAX_CORPUS_BYTES = 2**20

for_each_target = pytest.mark.parametrize("target", _TARGETS, ids=lambda target: target.name)


@for_each_target
def test_corpus_holds_every_property(target: FuzzTarget) -> None:
    """What once reached a new part of a parser, or broke it, still does not break it."""
    entry = target.entry()
    inputs = target.inputs()

    assert inputs
    for data in inputs:
        entry(data)


@for_each_target
def test_changed_corpus_holds_every_property(target: FuzzTarget) -> None:
    """Nor does what is made of it by cutting and pasting, or by chance."""
    entry, inputs = target.entry(), target.inputs()
    tokens: tuple[bytes, ...] = getattr(target.load(), "TOKENS", (b"\0",))

    @settings(derandomize=True, deadline=None, max_examples=60, database=None)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        one, other = (data.draw(st.sampled_from(inputs)) for _ in range(2))
        start, end = (data.draw(st.integers(0, len(one))) for _ in range(2))
        middle = data.draw(st.binary(max_size=16) | st.sampled_from(tokens) | st.just(other))
        entry(one[:start] + middle + one[end:])

    holds()


def test_every_target_has_a_corpus_and_the_corpus_is_small() -> None:
    """No folder without its target, no target without inputs, and little for a repository."""
    folders = {path.name for path in (FUZZ / "corpus").iterdir()}
    size_bytes = sum(len(data) for target in _TARGETS for data in target.inputs())

    assert folders == {target.name for target in _TARGETS}
    assert size_bytes < _MAX_CORPUS_BYTES


def _fails(*_args: object, **_keywords: object) -> object:
    raise LookupError("what no parser documents")


@pytest.mark.parametrize(
    ("name", "parser", "broken"),
    [
        ("terminal", "for_terminal", lambda text: text),
        ("frames", "encode", lambda _kind, payload: payload),
        ("seccomp_profiles", "MACHINES", set[str]()),
        ("stream_order", "MAX_OUTPUT_PIECE_BYTES", 2),
        *[
            (name, parser, _fails)
            for name, parser in (
                ("broker_messages", "read_reply"),
                ("broker_process", "read_result"),
                ("cell_reports", "cell_report"),
                ("cells", "compile_cell"),
                ("chat_replies", "read_chat_reply"),
                ("contexts", "encode_context"),
                ("http2", "ConnectionPolice"),
                ("queries", "read_query"),
                ("repl_reports", "check_query"),
                ("replies", "parse_reply"),
                ("trajectories", "event_of"),
                ("worker_messages", "read_worker_message"),
            )
        ],
    ],
)
def test_corpus_control(name: str, parser: str, broken: object) -> None:
    """A parser that does what it may not is found by the corpus, so the inputs do reach it."""
    [target] = [target for target in _TARGETS if target.name == name]
    module = target.load()
    setattr(module, parser, broken)
    entry = module.TestOneInput

    with pytest.raises((AssertionError, LookupError)):
        [entry(data) for data in target.inputs()]


def test_every_target_has_a_control() -> None:
    """A target that is added without one is noticed."""
    marks = test_corpus_control.pytestmark  # type: ignore[attr-defined] # what parametrize leaves
    assert {case[0] for case in marks[0].args[1]} == {target.name for target in _TARGETS}
