"""The program that stands between a cell and the kernel, run on paper."""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox_image.repl.refused_calls import refused_calls
from sandbox_image.repl.system_call_filter import (
    Comparison,
    Condition,
    Instruction,
    Rule,
    assemble,
)
from sandbox_image.repl.system_calls import MACHINES, Machine, this_machine

ALLOWED = 0x7FFF0000
REFUSED = 0x00050000
NOISE = 0xDEADBEEF << 32  # in the half of an argument that the kernel drops
WORKER_PID = 4711


def run(
    program: list[Instruction],
    machine: Machine,
    number: int,
    *arguments: int,
    abi: int | None = None,
) -> int:
    """Runs a program over one system call as the kernel would (seccomp(2), bpf(4))."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack(
        "<IIQ6Q",
        number,
        machine.audit_architecture if abi is None else abi,
        0,
        *(value & 0xFFFFFFFFFFFFFFFF for value in padded),
    )
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                [accumulator] = struct.unpack_from("<I", data, operand)
            case 0x06:
                return operand
            case 0x05:
                at += operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x25:
                at += if_true if accumulator > operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case _:
                pytest.fail(f"no such instruction: {code:#x}")


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


@pytest.fixture
def program(machine: Machine) -> list[Instruction]:
    return assemble([call.rule for call in refused_calls(WORKER_PID)], machine)


def test_every_refused_call_is_refused(machine: Machine, program: list[Instruction]) -> None:
    """Each rule's own attempt meets its own error, with and without noise in the upper halves."""
    for call in refused_calls(WORKER_PID):
        number = machine.numbers.get(call.rule.call)
        if number is None:
            continue
        noisy = [argument & 0xFFFFFFFF | NOISE for argument in call.attempt]
        expected = REFUSED | call.rule.error

        assert run(program, machine, number, *call.attempt) == expected, call.name
        assert run(program, machine, number, *noisy) == expected, call.name


def test_every_other_number_is_allowed(machine: Machine, program: list[Instruction]) -> None:
    """What no rule names goes through, whatever its arguments."""
    named = {machine.numbers.get(call.rule.call) for call in refused_calls(WORKER_PID)}

    for number in set(range(600)) - named:
        assert run(program, machine, number) == ALLOWED
        assert run(program, machine, number, *[0xFFFFFFFFFFFFFFFF] * 6) == ALLOWED


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("socketpair", (1, 1, 0)),
        ("tgkill", (77, 78, 6)),
        ("fcntl", (3, 1030)),  # F_DUPFD_CLOEXEC
        ("fcntl", (3, 4, 0x800)),  # F_SETFL
        ("ioctl", (3, 0x5451)),  # FIOCLEX
        ("prlimit64", (0, 2)),
        ("sched_setaffinity", (0, 8)),
        ("setpriority", (0, 0, 5)),
        ("clone", (0x003D0F00,)),  # a thread, as the C library starts it
        ("clone", (0x01200011,)),  # a fork
        ("prctl", (15,)),
    ],
)
def test_what_honest_cells_need_is_allowed(
    machine: Machine, program: list[Instruction], call: str, arguments: tuple[int, ...]
) -> None:
    """Refusals that depend on an argument leave the rest of the call as it was."""
    assert run(program, machine, machine.numbers[call], *arguments) == ALLOWED


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("kill", (-1, 9)),
        ("kill", (77, 9)),
        ("kill", (0, 9)),
        ("kill", (1, 9)),
        ("kill", (WORKER_PID, 9)),
        ("tgkill", (WORKER_PID, 9, 9)),
        ("prlimit64", (WORKER_PID, 7)),
        ("prctl", (4, 1)),  # PR_SET_DUMPABLE
        ("prctl", (22, 2)),  # PR_SET_SECCOMP
        ("prctl", (36, 1)),  # PR_SET_CHILD_SUBREAPER
        ("prctl", (62, 1)),  # PR_SCHED_CORE
        ("setpriority", (2, 0, 19)),  # every process of the user
        ("clone", (0x10000011,)),
        ("fcntl", (3, 8, 1)),  # F_SETOWN
    ],
)
def test_what_reaches_beyond_is_refused(
    machine: Machine, program: list[Instruction], call: str, arguments: tuple[int, ...]
) -> None:
    """Groups, everybody, the worker, and undoing one's own walls."""
    assert run(program, machine, machine.numbers[call], *arguments) == REFUSED | errno.EPERM


@pytest.mark.parametrize("abi", [0x40000003, 0x40000028, 0xC00000B7 ^ 1, 0])
def test_other_ways_of_calling_are_refused(
    machine: Machine, program: list[Instruction], abi: int
) -> None:
    """A 32-bit call's number means another call: none of them goes through (i386, arm)."""
    for number in (0, 1, 102, 400):
        assert run(program, machine, number, abi=abi) == REFUSED | errno.EPERM


def test_x32_is_refused() -> None:
    """The x32 way says x86_64 and marks the number; every marked number is refused."""
    machine = MACHINES["x86_64"]
    program = assemble([Rule(call="socket")], machine)

    for number in (0x40000000, 0x40000000 | 41, 0x40000000 | 520, 0xFFFFFFFF):
        assert run(program, machine, number) == REFUSED | errno.EPERM
    assert run(program, machine, 0x3FFFFFFF) == ALLOWED


def test_any_rule_of_a_call_refuses() -> None:
    """Several rules about one call are each enough, and each has its own error."""
    machine = MACHINES["aarch64"]
    program = assemble(
        [
            Rule(call="fcntl", conditions=(Condition(1, Comparison.EQUALS, 5),)),
            Rule(
                call="fcntl",
                conditions=(
                    Condition(1, Comparison.IS_ABOVE, 100),
                    Condition(2, Comparison.HAS_ANY_BIT_OF, 0b110, is_expected=False),
                ),
                error=errno.ENOSYS,
            ),
        ],
        machine,
    )
    number = machine.numbers["fcntl"]

    assert run(program, machine, number, 0, 5) == REFUSED | errno.EPERM
    assert run(program, machine, number, 0, 101, 1) == REFUSED | errno.ENOSYS
    assert run(program, machine, number, 0, 101, 2) == ALLOWED
    assert run(program, machine, number, 0, 100, 1) == ALLOWED


def test_program_without_rules_allows() -> None:
    """Nothing to refuse is no error, and refuses nothing but foreign ways of calling."""
    machine = MACHINES["x86_64"]

    assert run(assemble([], machine), machine, 41) == ALLOWED


def test_too_many_tests_are_an_error() -> None:
    """A rule that no jump reaches over is refused when it is made, not cut short."""
    rule = Rule(
        call="prctl", conditions=tuple(Condition(0, Comparison.EQUALS, n) for n in range(200))
    )

    with pytest.raises(ValueError, match="too many conditions"):
        assemble([rule], MACHINES["x86_64"])


def test_too_many_rules_are_an_error() -> None:
    """So is a program that the kernel would not take."""
    rules = [
        Rule(call="prctl", conditions=(Condition(0, Comparison.EQUALS, n),)) for n in range(2000)
    ]

    with pytest.raises(ValueError, match="the kernel takes 4096"):
        assemble(rules, MACHINES["x86_64"])


def test_unknown_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine whose numbers nobody looked up, nothing is refused in secret: it is an error."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(OSError, match="riscv64"):
        this_machine()
