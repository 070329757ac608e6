import pytest

from orchestrator.models.chat_reply import NotAReplyError, read_chat_reply, without_reasoning

CELL = '```python\ntext = re.sub(r"""\n<think>.*?</think>\n""", "", text)\n```\n'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("plain  ", "plain  ", id="none"),
        pytest.param("<think>a</think>b", "b", id="leading"),
        pytest.param("\n <think>\na\n```\n</think>\n\nb\n", "b", id="on-lines"),
        pytest.param("<think>a</think><think>c</think>b", "b", id="two"),
        pytest.param("first\n<think>a</think>\nlast", "first\nlast", id="between"),
        pytest.param("<think>never ends", "", id="unclosed"),
        pytest.param("a plan\n</think>\n\nb", "b", id="opening-tag-in-the-template"),
        pytest.param(CELL, CELL, id="in-a-cell"),
        pytest.param("<think>a</think>\n" + CELL + "b", CELL + "b", id="before-a-cell"),
        pytest.param("tags such as <think> are", "tags such as <think> are", id="in-prose"),
    ],
)
def test_reasoning_is_removed_and_nothing_else(text: str, answer: str) -> None:
    """Reasoning leaves a reply; a cell or a sentence about such tags stays as it was."""
    assert without_reasoning(text) == answer


def test_content_in_parts_is_joined() -> None:
    """Text parts are the answer; parts of any other type are not."""
    parts = [
        {"type": "thinking", "thinking": "a plan"},
        {"type": "text", "text": "forty-"},
        {"type": "text", "text": "two"},
    ]

    reply = read_chat_reply({"choices": [{"message": {"content": parts}}]})

    assert reply.text == "forty-two"


@pytest.mark.parametrize(
    "body",
    [
        None,
        "text",
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": ["text"]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": 4}}]},
        {"choices": [{"message": {"content": []}}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
    ],
)
def test_what_is_no_completion_is_refused(body: object) -> None:
    """A body without an answer in it never becomes an empty answer."""
    with pytest.raises(NotAReplyError):
        read_chat_reply(body)
