"""Scripts: the file behind `--model scripted:FILE`.

Without it a machine without a provider's key could not show a run from end to end, and a test would
write its models in Python. One script serves both models of a run.

A script is a TOML file, because its literal strings (three single quotes) hold a reply's code as it
is written, which JSON would escape:

    sub_otherwise = "echo"      # optional: a prompt no [[sub]] answers is answered with itself

    [[root]]                    # replies of the root model, in order, each used once
    text = '''
    text and fenced cells
    '''
    delay_s = 0.5               # optional: how long the reply takes

    [[sub]]                     # replies of the sub-model
    contains = "capital of"     # optional: answers every prompt that holds these characters
    text = "Paris"

    [[sub]]                     # without `contains`: used once, in order, for the other prompts
    text = "42"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.models.scripted import ScriptedModel, ScriptedReply

_SCHEMA = (
    "A script is TOML: [[root]] tables with `text`, [[sub]] tables with `text` and perhaps "
    '`contains`, each perhaps with `delay_s`; before them, perhaps sub_otherwise = "echo"'
)
_MAX_DELAY_S = 3600.0  # a script that waits longer than any run may take is a mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script as read: one file serves the root model and the sub-model.

    Attributes:
        name: What its models are reported as: `scripted:` and the file's name.
        root_replies: What the root model answers.
        sub_replies: What the sub-model answers.
        sub_echoes_rest: Whether the sub-model answers with the prompt where no reply fits.
    """

    name: str
    root_replies: tuple[ScriptedReply, ...] = ()
    sub_replies: tuple[ScriptedReply, ...] = ()
    sub_echoes_rest: bool = False

    def root_model(self) -> ScriptedModel:
        """Returns a root model that starts at the first reply."""
        return ScriptedModel(name=self.name, part="root", replies=self.root_replies)

    def sub_model(self) -> ScriptedModel:
        """Returns a sub-model that starts at the first reply."""
        return ScriptedModel(
            name=self.name,
            part="sub",
            replies=self.sub_replies,
            echoes_rest=self.sub_echoes_rest,
        )


def load_script(path: Path) -> Script:
    """Reads a script; the module's docstring has the form.

    Raises:
        InputError: There is no such file, it is not TOML, or not a script. The message names the
            line and column, or the table and key, and says what belongs there.
    """
    if not path.is_file():
        message = f"expected a script at {path}, found no file there. {_SCHEMA}"
        raise InputError(message)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        message = f"the script {path} cannot be read: {err.strerror}"
        raise InputError(message) from err
    except UnicodeDecodeError as err:
        message = f"the script {path} is not UTF-8: byte {err.start} is {err.object[err.start]:#x}"
        raise InputError(message) from err
    except tomllib.TOMLDecodeError as err:
        message = f"the script {path} is not TOML: {err}. {_SCHEMA}"
        raise InputError(message) from err
    try:
        return _script(document, name=f"scripted:{path.name}")
    except _NotAScriptError as err:
        message = f"the script {path} is malformed: {err}. {_SCHEMA}"
        raise InputError(message) from None


class _NotAScriptError(Exception):
    """What was expected where, and what is there."""


def _script(document: dict[str, object], *, name: str) -> Script:
    _check_keys(document, allowed={"root", "sub", "sub_otherwise"}, where="the top level")
    otherwise = document.get("sub_otherwise")
    if otherwise is not None and otherwise != "echo":
        message = f'sub_otherwise: expected "echo", found {otherwise!r}'
        raise _NotAScriptError(message)
    root_replies = _replies(document, "root", allowed={"text", "delay_s"})
    if not root_replies and not document.get("sub"):
        message = "it holds neither [[root]] nor [[sub]]"
        raise _NotAScriptError(message)
    return Script(
        name=name,
        root_replies=root_replies,
        sub_replies=_replies(document, "sub", allowed={"text", "contains", "delay_s"}),
        sub_echoes_rest=otherwise == "echo",
    )


def _replies(
    document: dict[str, object], part: str, *, allowed: set[str]
) -> tuple[ScriptedReply, ...]:
    tables = document.get(part, [])
    if not isinstance(tables, list):
        message = f"{part}: expected tables headed [[{part}]], found {_kind(tables)}"
        raise _NotAScriptError(message)
    return tuple(
        _reply(table, where=f"[[{part}]] number {number}", allowed=allowed)
        for number, table in enumerate(tables, start=1)
    )


def _reply(table: object, *, where: str, allowed: set[str]) -> ScriptedReply:
    if not isinstance(table, dict):
        message = f"{where}: expected a table, found {_kind(table)}"
        raise _NotAScriptError(message)
    _check_keys(table, allowed=allowed, where=where)
    text, contains, delay_s = table.get("text"), table.get("contains"), table.get("delay_s", 0.0)
    if not isinstance(text, str):
        message = f"{where}: `text` must be a string, found {_kind(text)}"
        raise _NotAScriptError(message)
    # An empty `contains` occurs in every prompt and would hide whatever follows it.
    if contains is not None and (not isinstance(contains, str) or not contains):
        message = f"{where}: `contains` must be a string that is not empty, found {contains!r}"
        raise _NotAScriptError(message)
    if (
        isinstance(delay_s, bool)
        or not isinstance(delay_s, int | float)
        or not 0 <= delay_s <= _MAX_DELAY_S
    ):
        message = f"{where}: `delay_s` must be 0 to {_MAX_DELAY_S:g} seconds, found {delay_s!r}"
        raise _NotAScriptError(message)
    return ScriptedReply(text=text, contains=contains, delay_s=float(delay_s))


def _check_keys(table: dict[str, object], *, allowed: set[str], where: str) -> None:
    unknown = sorted(set(table) - allowed)
    if unknown:
        message = f"{where}: unknown key `{unknown[0]}`, expected one of {sorted(allowed)}"
        raise _NotAScriptError(message)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
