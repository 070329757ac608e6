"""What the worker tries of the refused calls, and refuses by itself where the runtime does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sandbox.seccomp_floor import FLOOR, ArgumentTest
from sandbox_image.first_stage import GROUPS
from sandbox_image.repl.system_call_filter import Comparison, Condition
from sandbox_image.repl.system_calls import MACHINES

CORPUS = Path(__file__).parents[1] / "support/corpora/system_calls"


def corpus(file: str) -> dict[str, list[str]]:
    """Returns the lines of a file of the corpus, by their first word."""
    lines = [line for line in (CORPUS / file).read_text().splitlines() if line[0] != "#"]
    return {words[0]: words[1:] for words in map(str.split, lines)}


def refuses_all_but(test: ArgumentTest) -> Condition:
    """Returns the condition that refuses what a test of the floor does not let through."""
    if test.operator == "SCMP_CMP_MASKED_EQ":
        return Condition(test.index, Comparison.HAS_ANY_BIT_OF, test.value)
    return Condition(test.index, Comparison.EQUALS, test.value, is_expected=False)


def test_groups_are_those_of_the_floor() -> None:
    """What the worker refuses where a runtime does not is what the profile refuses, no less."""
    on_other_machines = corpus("only_elsewhere.txt").keys()

    assert list(GROUPS) == list(FLOOR)
    for name, group in GROUPS.items():
        floor = FLOOR[name]
        assert set(group.calls) == floor.calls - on_other_machines
        assert set(group.conditions) == {refuses_all_but(test) for test in floor.unless}
        assert group.error == floor.error


def test_numbers_are_those_of_linux() -> None:
    """A wrong number would refuse another call, or try one that does something."""
    numbers = corpus("linux.tsv")
    found = {
        name: [str(machine.numbers.get(name, "-")) for machine in MACHINES.values()]
        for name in MACHINES["x86_64"].numbers
    }

    assert list(MACHINES) == ["x86_64", "aarch64"]
    assert found == {name: numbers[name] for name in found}
    assert {call for group in GROUPS.values() for call in group.calls} <= found.keys()


@pytest.mark.parametrize("machine", MACHINES)
def test_each_group_is_tried_on_each_machine(machine: str) -> None:
    """No group goes untried, but the one that is about the processors of one kind."""
    untried = {
        name for name, group in GROUPS.items() if group.attempt[0] not in MACHINES[machine].numbers
    }

    assert untried == ({"processor-tables"} if machine == "aarch64" else set())


def test_labels_fit_the_contract() -> None:
    """A list of all of them is a claim the orchestrator takes, and no two are alike."""
    labels = [group.label for group in GROUPS.values()]

    assert len(labels) == len(set(labels)) <= 64
    assert all(len(label) <= 64 for label in labels)


ATTEMPTS = """
import json
from sandbox_image.first_stage import GROUPS, open_calls, refuse_calls
from sandbox_image.repl.system_calls import make_system_call, this_machine

def attempts():
    numbers = this_machine().numbers
    tried = {name: group.attempt for name, group in GROUPS.items()}
    return {name: make_system_call(numbers[call], *arguments)[1]
            for name, (call, arguments) in tried.items() if call in numbers}
"""
THREADS_AND_CHILDREN = """
import multiprocessing, os, socket
from concurrent.futures import ThreadPoolExecutor
refuse_calls()
with ThreadPoolExecutor(2) as threads:
    squares = list(threads.map(lambda number: number**2, range(3)))
near, far = socket.socketpair()
near.sendall(b"x")
queue = multiprocessing.get_context("fork").SimpleQueue()
child = multiprocessing.get_context("fork").Process(target=queue.put, args=("child",))
child.start()
answer = queue.get()
child.join()
print(json.dumps([squares, far.recv(1).decode(), answer, child.exitcode, os.isatty(1)]))
"""


def told_by_a_process(source: str) -> Any:  # noqa: ANN401 - JSON
    """Returns what a process of its own tells, which may give up what it likes."""
    ended = subprocess.run(
        [sys.executable, "-c", ATTEMPTS + source], check=True, capture_output=True, timeout=60
    )
    return json.loads(ended.stdout)


def test_own_refusal_holds() -> None:
    """A process that refuses the calls to itself gets the error of each, and finds none open."""
    errors, found = told_by_a_process(
        "refuse_calls(); print(json.dumps([attempts(), open_calls()]))"
    )

    assert errors == {name: GROUPS[name].error for name in errors}
    assert found == []


def test_own_refusal_control() -> None:
    """Without it the same attempts find out that most are open, and none of them does anything."""
    found = told_by_a_process("print(json.dumps(open_calls()))")

    assert {"ptrace", "memfd_create", "socket(AF_INET)", "ioctl(TIOCSTI)"} <= set(found)


def test_own_refusal_leaves_threads_and_processes_alone() -> None:
    """clone3 fails as if the kernel were old, so threads start; so do children, and they talk."""
    told = told_by_a_process(THREADS_AND_CHILDREN)

    assert told == [[0, 1, 4], "x", "child", 0, False]
