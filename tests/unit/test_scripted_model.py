import asyncio
from pathlib import Path

import pytest

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.errors import InputError, ModelUnavailableError
from orchestrator.models.script_file import Script, load_script
from orchestrator.models.scripted import EchoModel, ScriptedModel, ScriptedReply

NOTHING = ModelRequest(messages=())

SCRIPT = """
sub_otherwise = "echo"

[[root]]
text = '''
Look first.
```repl
print(context[:100], "\\n")
```
'''

[[root]]
text = "second"
delay_s = 0.01

[[sub]]
contains = "capital"
text = "Paris"

[[sub]]
text = "first in order"
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "demo.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return load_script(written(tmp_path, SCRIPT))


async def ask(model: ScriptedModel | EchoModel, prompt: str) -> str:
    chat = (Message("system", "s"), Message("user", prompt))
    return (await model.complete(ModelRequest(messages=chat))).text


async def test_root_replies_come_in_order_as_written(script: Script) -> None:
    """The root model says what the script holds, code and backslashes untouched."""
    model = script.root_model()

    assert await ask(model, "q") == ('Look first.\n```repl\nprint(context[:100], "\\n")\n```\n')
    assert await ask(model, "q") == "second"


async def test_root_that_runs_out_says_which_reply_is_missing(script: Script) -> None:
    """The error names the script, the request and the table to add."""
    model = script.root_model()
    await ask(model, "q")
    await ask(model, "q")

    with pytest.raises(ModelUnavailableError) as caught:
        await ask(model, "q")

    assert str(caught.value) == (
        "expected a reply for request 3 to the root model of scripted:demo.toml, but the script "
        "holds 2 [[root]] replies to be used in order and all are used; add a [[root]] table"
    )


async def test_sub_replies_match_then_come_in_order_then_echo(script: Script) -> None:
    """A matching reply is used again and again, one without `contains` once, then the prompt."""
    model = script.sub_model()
    prompts = ["the capital of F", "x", "another capital", "y"]

    assert [await ask(model, prompt) for prompt in prompts] == [
        "Paris",
        "first in order",
        "Paris",
        "y",
    ]


async def test_each_model_of_a_script_starts_at_its_beginning(script: Script) -> None:
    """A script can be run twice."""
    assert await ask(script.root_model(), "q") == await ask(script.root_model(), "q")


async def test_concurrent_calls_share_the_replies_in_call_order() -> None:
    """A slow reply does not give its place to a later call."""
    replies = [ScriptedReply(text="slow", delay_s=0.05), ScriptedReply(text="quick")]
    model = ScriptedModel(name="scripted:a", part="sub", replies=replies)

    replies_given = await asyncio.gather(ask(model, "1"), ask(model, "2"))

    assert list(replies_given) == ["slow", "quick"]


async def test_nothing_is_paid_for_a_reply_nobody_gave(script: Script) -> None:
    """Scripted and echoed replies cost nothing and say that no model was asked."""
    reply = await script.root_model().complete(NOTHING)

    assert (reply.cost_usd, reply.prompt_tokens, reply.completion_tokens) == (0.0, 0, 0)
    assert script.root_model().is_scripted
    assert EchoModel().is_scripted


async def test_echo_answers_with_the_last_user_message() -> None:
    """The echo repeats the prompt, not the system text and not an earlier message."""
    chat = (Message("user", "a"), Message("user", "b"), Message("assistant", "c"))
    asked = ModelRequest(messages=chat)

    assert await EchoModel().complete(asked) == ModelReply(text="b", cost_usd=0.0)
    assert await EchoModel().complete(NOTHING) == ModelReply(text="", cost_usd=0.0)


async def test_whoever_listens_hears_the_whole_reply_at_once(script: Script) -> None:
    """A reply that comes from nowhere has no pieces."""
    heard: list[str] = []

    def listen(piece: str) -> bool:
        heard.append(piece)
        return True

    await EchoModel().complete(ModelRequest(messages=(Message("user", "a"),)), on_text=listen)
    await script.sub_model().complete(
        ModelRequest(messages=(Message("user", "the capital"),)), on_text=listen
    )

    assert heard == ["a", "Paris"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[root]]\ntext = \n", "is not TOML: Invalid value (at line 2, column 8)"),
        ("", "it holds neither [[root]] nor [[sub]]"),
        ("root = 'hello'", "root: expected tables headed [[root]], found str 'hello'"),
        ("root = ['hello']", "[[root]] number 1: expected a table, found str 'hello'"),
        ("[[root]]\ntext = 'a'\n[[root]]\n", "[[root]] number 2: `text` must be a string"),
        ("[[root]]\ntext = 4", "`text` must be a string, found int '4'"),
        ("[[root]]\ntext = 'a'\nreply = 'b'", "[[root]] number 1: unknown key `reply`"),
        ("[[root]]\ntext = 'a'\ncontains = 'b'", "[[root]] number 1: unknown key `contains`"),
        ("[[sub]]\ntext = 'a'\ncontains = ''", "`contains` must be a string that is not empty"),
        ("[[sub]]\ntext = 'a'\ndelay_s = -1", "`delay_s` must be 0 to 3600 seconds, found -1"),
        ("[[sub]]\ntext = 'a'\ndelay_s = nan", "`delay_s` must be 0 to 3600 seconds, found nan"),
        ("[[sub]]\ntext = 'a'\ndelay_s = true", "`delay_s` must be 0 to 3600 seconds, found True"),
        ("[[roots]]\ntext = 'a'", "the top level: unknown key `roots`"),
        ("sub_otherwise = 'fail'", "sub_otherwise: expected \"echo\", found 'fail'"),
        ("sub_otherwise = []", 'sub_otherwise: expected "echo", found []'),
    ],
)
def test_malformed_script_is_refused_with_its_place(
    tmp_path: Path, text: str, sentence: str
) -> None:
    """Whoever wrote the script reads where it is wrong and what a script looks like."""
    path = written(tmp_path, text)

    with pytest.raises(InputError) as caught:
        load_script(path)

    assert str(caught.value).startswith(f"the script {path} is ")
    assert sentence in str(caught.value)
    assert "[[root]] tables with `text`" in str(caught.value)


def test_script_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """A binary file is named as one, with the byte that shows it."""
    path = tmp_path / "a.toml"
    path.write_bytes(b"text = '\xff'")

    with pytest.raises(InputError, match="is not UTF-8: byte 8 is 0xff"):
        load_script(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_script_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    """A missing file and a directory are the caller's to correct."""
    with pytest.raises(InputError, match=r"expected a script at .* found no file there"):
        load_script(tmp_path / name)
