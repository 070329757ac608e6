"""A cell that prints what a terminal acts on, or what hides text from who reads it."""

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.broker_host import short_directory
from support.docker_sandboxes import engine_and_image

pytestmark = pytest.mark.docker

COMMAND = Path(sys.executable).with_name("rlm")
#: Sets a title, moves up and erases, writes to the clipboard, hides and reorders, in C0 and C1.
HOSTILE = (
    "\x1b]0;title\x07\x1b[2A\x1b[2K\x1b]52;c;aGk=\x1b\\\x1b[31m\x9b31m\x9d0;t\x9c\x1bP+q\x1b\\\x1bc"
    "\x00\x08\x0b\x0c\x0e\x7f\u202e\u2066\u2069\u200b\u2028\u2029\ufeff\U000e0041\r"
)
#: The same marks in whatever a cell can have shown: output, an error, a frame's line, an answer.
PRINTS = f"""
import sys
marks = {HOSTILE!r}
print(f"seen<{{marks}}>out")
sys.stderr.write(marks)
"""
RAISES = """
Odd = type(marks.replace("\\0", "") + "Odd", (Exception,), {})
raise Odd(f"why<{marks}>")  # \N{RIGHT-TO-LEFT OVERRIDE}
"""
ANSWERS = "FINAL(f'answer<{marks}>')"


def environment(directory: Path) -> dict[str, str]:
    """Returns the whole environment of the command."""
    engine, _ = engine_and_image()
    return {
        "PATH": os.defpath,
        "HOME": str(directory),
        "TERM": "xterm-256color",
        "DOCKER_HOST": engine.endpoint,
        "RLM_RUNTIME": "runc",
        "RLM_RUNTIME_DIRECTORY": str(directory / "r"),
    }


def write_cells(directory: Path) -> list[Path]:
    """Writes one file for each cell."""
    sources = {"prints.py": PRINTS, "raises.py": RAISES, "answers.py": ANSWERS}
    paths = [directory / name for name in sources]
    for path in paths:
        path.write_text(sources[path.name])
    return paths


def run_in_a_terminal(arguments: list[str | Path], env: Mapping[str, str]) -> str:
    """Runs a command that finds a terminal at all three ends; returns what the terminal got."""
    near, far = os.openpty()
    with subprocess.Popen(arguments, stdin=far, stdout=far, stderr=far, env=env) as process:
        os.close(far)
        shown = b""
        try:
            while piece := os.read(near, 2**16):
                shown += piece
        except OSError:  # how Linux says that the other end of a terminal is closed (EIO)
            pass
        finally:
            os.close(near)
        process.wait(60)
    return shown.decode()


def run_exec_in_a_terminal() -> str:
    with short_directory() as directory:
        arguments: list[str | Path] = [COMMAND, "exec", "--policy", "open", *write_cells(directory)]
        return run_in_a_terminal(arguments, environment(directory))


@pytest.fixture(scope="module")
def shown() -> str:
    """What a terminal got of cells that print, raise and answer hostile text."""
    return run_exec_in_a_terminal()


def test_nothing_a_terminal_acts_on_reaches_it(shown: str) -> None:
    """Of every control character only the line's end is left, and of every sequence nothing."""
    controls = {character for character in shown if unicodedata.category(character) == "Cc"}

    assert controls <= {"\r", "\n", "\t"}
    assert [debris for debris in ("title", "aGk=", "[31m", "[2K", "+q") if debris in shown] == []


def test_nothing_that_hides_or_reorders_text_reaches_it(shown: str) -> None:
    """Bidirectional overrides, zero widths and tags are gone: who reads sees all there is."""
    assert {c for c in shown if unicodedata.category(c) in {"Cf", "Zl", "Zp", "Cs", "Co"}} == set()


def test_what_was_said_is_still_read(shown: str) -> None:
    """The text around the marks is there, of output, error and answer."""
    assert "seen<" in shown
    assert ">out" in shown
    assert "Odd: why<" in shown
    assert "answer<" in shown


def test_marks_were_printed_control() -> None:
    """A program that reads gets every mark, as JSON in ASCII: the cells did print them."""
    with short_directory() as directory:
        ended = subprocess.run(
            [COMMAND, "exec", "--policy", "open", *write_cells(directory)],
            env=environment(directory),
            capture_output=True,
            check=False,
        )
    printed, raised, answered = map(json.loads, ended.stdout.decode("ascii").splitlines())

    assert printed["stdout"] == f"seen<{HOSTILE}>out\n"
    assert printed["stderr"] == HOSTILE
    assert raised["error"]["message"] == f"why<{HOSTILE}>"
    assert answered["answer"]["content"] == f"answer<{HOSTILE}>"
