"""What comes of cells that break rules, limits or their interpreter, and of replies without one."""

import json
from pathlib import Path

import pytest
from support.model_server import ModelServer
from support.real_host import RealHost, cell

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

ENDLESS = "while True:\n    pass"
STUBBORN = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
EXIT = "import os\nos._exit(3)"
PRINT_1_GB = "for _ in range(1024):\n    print('x' * (2**20 - 1))"
BOMB = "hoard = []\nwhile True:\n    hoard.append('x' * 2**20)"
HUGE = "huge = bytearray(2**40)"


@pytest.mark.parametrize(
    ("source", "outcome", "told"),
    [
        pytest.param(
            "found = (1,",
            "rejected",
            ["SyntaxError: line 1: '(' was never closed", "Nothing of this cell ran."],
            id="syntax-error",
        ),
        pytest.param(
            ENDLESS,
            "timed_out",
            ["stopped after 1 s of its own time", "Variables are as this cell left them."],
            id="endless-loop",
        ),
        pytest.param(
            STUBBORN,
            "timed_out",
            ["stopped after 1 s of its own time", "Variables are as before this cell."],
            id="endless-loop-that-goes-on",
        ),
        pytest.param(
            EXIT,
            "killed",
            ["do not call os._exit", "Variables are as before this cell."],
            id="os-exit",
        ),
        pytest.param(
            PRINT_1_GB,
            "succeeded",
            ["xxxx", "1,073,741,824 bytes were printed in all"],
            id="1-gb-print",
        ),
        pytest.param(BOMB, "raised", ["MemoryError", "work on smaller pieces"], id="memory-bomb"),
        pytest.param(
            HUGE, "raised", ["MemoryError", "work on smaller pieces"], id="memory-at-once"
        ),
    ],
)
def test_bad_cell_costs_one_turn(
    host: RealHost, text: Path, source: str, outcome: str, told: list[str]
) -> None:
    """The model reads what happened and what to do; context and variables are there after it."""
    replies = [
        cell("kept = 'kept'"),
        cell(source),
        cell("FINAL(f'{kept} {context}')"),
    ]
    with ModelServer(root=replies) as server:
        ended = host.call(
            *("run", "q", "--context", text, "--timeout", "1" if "pass" in source else "30"),
            environment=host.environment(server),
        )
        report = server.root_requests[2].prompt

    assert (ended.exit_code, ended.stdout) == (0, "kept 'a few words'\n"), ended.stderr
    assert f"turn 2, cell 2 {outcome}" in ended.stderr
    for words in told:
        assert words in report
    assert len(report) < 50_000


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        pytest.param("It is 42. FINAL(42)", "holds no block of code", id="prose"),
        pytest.param("", "holds no block of code", id="nothing"),
        pytest.param("```bash\nls\n```", "labelled `bash` are not run", id="other-language"),
    ],
)
def test_reply_without_code_is_repaired(host: RealHost, text: Path, reply: str, told: str) -> None:
    """Prose is never taken for the answer: the model reads how to give one, and the run goes on."""
    with ModelServer(root=[reply, cell("FINAL('answered')")]) as server:
        ended = host.call(*("run", "q", "--context", text), environment=host.environment(server))
        repair = server.root_requests[1].prompt

    assert (ended.exit_code, ended.stdout) == (0, "answered\n"), ended.stderr
    assert told in repair
    assert "```repl" in repair


def test_model_that_never_writes_code(host: RealHost, text: Path) -> None:
    """At the limit of turns its last word is asked for and marked as a guess; exit code 3."""
    with ModelServer(root=["It is 42.", "I said 42.", "42"]) as server:
        ended = host.call(
            *("run", "q", "--context", text, "--max-turns", 2),
            environment=host.environment(server),
        )

    assert (ended.exit_code, ended.stdout) == (3, "42\n"), ended.stderr
    assert "what is printed is the model's best guess" in ended.stderr


def test_hostile_files_have_a_line_each(host: RealHost, tmp_path: Path) -> None:
    """`rlm exec` reports on every file, whatever became of the ones before; exit code 1."""
    sources = {
        "first": ("kept = 1", "succeeded"),
        "syntax": ("found = (1,", "rejected"),
        "endless": (ENDLESS, "timed_out"),
        "exit": (EXIT, "killed"),
        "bomb": (BOMB, "raised"),
        "error": ("1 / 0", "raised"),
        "last": ("print(kept)", "succeeded"),
    }
    for name, (source, _outcome) in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    ended = host.call("exec", *(tmp_path / f"{name}.py" for name in sources), "--timeout", "5")

    assert ended.exit_code == 1, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {Path(line["file"]).stem: line["outcome"] for line in lines} == {
        name: outcome for name, (_source, outcome) in sources.items()
    }
    assert lines[-1]["stdout"] == "1\n"
