from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.models.reasoning import (
    ReasoningFilter,
    StreamedText,
    begins_in_reasoning,
    without_reasoning,
)

CELL = '```python\ntext = re.sub(r"""\n<think>.*?</think>\n""", "", text)\n```\n'
TEXTS = [
    pytest.param("plain  ", "plain  ", id="none"),
    pytest.param("<think>a</think>b", "b", id="leading"),
    pytest.param("\n <think>\na\n```\n</think>\n\nb\n", "b", id="on-lines"),
    pytest.param("<think>a</think><think>c</think>b", "b", id="two"),
    pytest.param("first\n<think>a</think>\nlast", "first\nlast", id="between"),
    pytest.param("<think>never ends", "", id="unclosed"),
    pytest.param(CELL, CELL, id="in-a-cell"),
    pytest.param("<think>a</think>\n" + CELL + "b", CELL + "b", id="before-a-cell"),
    pytest.param("tags such as <think> are", "tags such as <think> are", id="in-prose"),
    pytest.param("a < b\n<thinner\n``\n", "a < b\n<thinner\n``\n", id="nearly-a-tag"),
    pytest.param("ends in <th", "ends in <th", id="ends-in-half-a-tag"),
    pytest.param("\n<thi", "\n<thi", id="is-half-a-tag"),
]
ORPHAN = "a plan\n</think>\n\nb"

pieces_of_text = st.sampled_from(
    ["<think>", "</think>", "```", "~~~", "\n", " ", "a", "<", "<th", "ink>", "</", "`", "\u3000"]
)


def filtered(pieces: list[str], *, begins: bool = False) -> str:
    """What a listener hears of a reply that comes in these pieces."""
    leaving_out = ReasoningFilter(begins_in_reasoning=begins)
    return "".join(leaving_out.take(piece) for piece in pieces) + leaving_out.finish()


@pytest.mark.parametrize(("text", "answer"), TEXTS)
def test_reasoning_is_removed_and_nothing_else(text: str, answer: str) -> None:
    """Reasoning leaves a reply; a cell or a sentence about such tags stays as it was."""
    assert without_reasoning(text) == answer


@pytest.mark.parametrize(("text", "answer"), TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_reasoning_is_removed_from_pieces(text: str, answer: str, size: int) -> None:
    """However a reply is cut into pieces, what is heard of it is its answer."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]

    assert filtered(pieces) == answer


@given(parts=st.lists(pieces_of_text, max_size=40), cuts=st.lists(st.integers(0, 120), max_size=12))
def test_pieces_come_to_what_the_whole_comes_to(parts: list[str], cuts: list[int]) -> None:
    """The cut of a stream makes no difference, but for spaces heard before any reasoning."""
    text = "".join(parts)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    # What came before a tag that nothing opens has been heard by then, unless it was expected.
    heard = filtered(pieces, begins=begins_in_reasoning(text))
    if "think>" in text:
        heard, text = heard.strip(), without_reasoning(text).strip()

    assert heard == text


@given(text=st.text(max_size=60), begins=st.booleans())
def test_text_without_tags_is_heard_as_it_is(text: str, *, begins: bool) -> None:
    """Where there is no reasoning nothing is left out, whatever was expected of the model."""
    assert filtered(list(text), begins=begins) == text


def test_reply_may_begin_in_reasoning() -> None:
    """Some chat templates open the reasoning themselves: what stands before its end is none."""
    assert begins_in_reasoning(ORPHAN)
    assert without_reasoning(ORPHAN) == "b"


def test_model_that_is_known_to_begin_in_reasoning_is_heard_after_it() -> None:
    """Once seen, such reasoning is held back until its tag; where there is none, to the end."""
    knowing = ReasoningFilter(begins_in_reasoning=True)

    assert [knowing.take(piece) for piece in ("a plan\n</th", "ink>\n", "\nb", "c")] == [
        "", "", "b", "c",
    ]  # fmt: skip
    assert filtered(["no ", "reasoning"], begins=True) == "no reasoning"


def test_expected_reasoning_ends_at_a_line_or_where_a_tag_opens_it() -> None:
    """A tag within a line ends nothing, and a reply with both tags is like any other."""
    knowing = ReasoningFilter(begins_in_reasoning=True)
    within_a_line = [knowing.take(piece) for piece in ("about </think>", " tags\n</think>a")]

    assert within_a_line == ["", "a"]
    assert filtered(["<think>a plan", "</think>", "b"], begins=True) == "b"


def test_nothing_is_held_back_longer_than_it_may_be_a_tag() -> None:
    """Whoever listens hears each piece at once, unless it may yet turn out to be a tag."""
    leaving_out = ReasoningFilter()

    assert [leaving_out.take(piece) for piece in ("Hel", "lo\n<t", "a", "\n")] == [
        "Hel", "lo\n", "<ta", "\n",
    ]  # fmt: skip


def test_all_that_came_is_kept_for_the_bill() -> None:
    """Reasoning is no answer, and is paid for all the same."""
    text = StreamedText(begins_in_reasoning=False)
    text.add_reasoning("apart ")
    heard = text.add("<think>inside</think>") + text.add("said")

    assert (heard, text.raw) == ("said", "<think>inside</think>said")
    assert text.everything == "apart <think>inside</think>said"
