"""A seccomp filter for the process that calls this, and for all that come from it.

Without it a cell could ask the kernel for everything that its container may. The image has no
library that writes such programs, and the few instructions of classic BPF that seccomp(2) takes are
quickly written: a search for the call's number, then a look at its arguments.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from sandbox_image.repl.system_calls import Machine, make_system_call

_PR_SET_SECCOMP = 22  # prctl(2)
_SECCOMP_MODE_FILTER = 2
_RETURN_ALLOW = 0x7FFF0000  # linux/seccomp.h
_RETURN_ERROR = 0x00050000

# linux/bpf_common.h: the class of an instruction, its size or operation, its mode or source.
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_ABOVE = 0x25  # … BPF_JGT, unsigned
_JUMP_IF_FROM = 0x35  # … BPF_JGE, unsigned
_JUMP_IF_ANY_BIT = 0x45  # … BPF_JSET
_RETURN = 0x06  # BPF_RET | BPF_K
_FARTHEST_JUMP = 255  # of a conditional one: its distances are bytes

# struct seccomp_data (linux/seccomp.h).
_NUMBER_OFFSET = 0
_ARCHITECTURE_OFFSET = 4
_ARGUMENTS_OFFSET = 16
_ARGUMENT_SIZE = 8

#: One instruction: code, distance if true, distance if false, operand (struct sock_filter).
Instruction = tuple[int, int, int, int]
_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog (linux/filter.h)
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class Comparison(IntEnum):
    """How an argument is compared; each is the code of its jump."""

    EQUALS = _JUMP_IF_EQUAL
    IS_ABOVE = _JUMP_IF_ABOVE
    HAS_ANY_BIT_OF = _JUMP_IF_ANY_BIT


class Condition(NamedTuple):
    """A question about one argument of a system call.

    Only the lower half of an argument is looked at: every argument that is tested here is an `int`
    or a `pid_t` to the kernel, which drops the upper half. Looking at both would let a caller who
    fills the upper half with noise get past.

    Attributes:
        argument: Which, from 0.
        comparison: How it is compared; without a sign.
        value: With what.
        is_expected: The answer that lets the refusal hold.
    """

    argument: int
    comparison: Comparison
    value: int
    is_expected: bool = True


class Rule(NamedTuple):
    """A refusal: this call fails with `error` where every condition holds; always, without any."""

    call: str
    conditions: tuple[Condition, ...] = ()
    error: int = errno.EPERM


def assemble(rules: Iterable[Rule], machine: Machine) -> list[Instruction]:
    """Returns the program that refuses what `rules` say on `machine`, and allows all else.

    Calls by another way than the machine's own (the 32-bit one, x32) are refused whole: their
    numbers mean other things. Rules about calls that the machine does not have are left out.
    """
    by_number: dict[int, list[Rule]] = {}
    for rule in rules:
        if (number := machine.numbers.get(rule.call)) is not None:
            by_number.setdefault(number, []).append(rule)
    blocks = [(number, _block(found)) for number, found in sorted(by_number.items())]
    refuse = (_RETURN, 0, 0, _RETURN_ERROR | errno.EPERM)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_IF_EQUAL, 1, 0, machine.audit_architecture),
        refuse,
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    if machine.foreign_from is not None:
        program += [(_JUMP_IF_FROM, 0, 1, machine.foreign_from), refuse]
    program += _search(blocks)
    if len(program) > _MOST_INSTRUCTIONS:
        raise ValueError(f"{len(program)} instructions; the kernel takes {_MOST_INSTRUCTIONS}")
    return program


def _search(blocks: Sequence[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Finds the number's block by halving: without a just-in-time compiler every step counts."""
    if not blocks:
        return [(_RETURN, 0, 0, _RETURN_ALLOW)]
    if len(blocks) == 1:
        [(number, block)] = blocks
        return [
            (_JUMP_IF_EQUAL, 1, 0, number),
            (_RETURN, 0, 0, _RETURN_ALLOW),
            *block,
        ]
    middle = len(blocks) // 2
    lower, upper = _search(blocks[:middle]), _search(blocks[middle:])
    return [(_JUMP_IF_FROM, 0, 1, blocks[middle][0]), (_JUMP, 0, 0, len(lower)), *lower, *upper]


def _block(rules: Sequence[Rule]) -> list[Instruction]:
    """Returns what is done about one call: the first rule whose conditions hold refuses it."""
    block: list[Instruction] = []
    for rule in rules:
        code: list[Instruction] = [(_RETURN, 0, 0, _RETURN_ERROR | rule.error)]
        for condition in reversed(rule.conditions):
            # Where the condition fails, on to the end of this rule.
            skip = len(code)
            if skip > _FARTHEST_JUMP:
                raise ValueError(f"a rule about {rule.call} has too many conditions")
            distances = (0, skip) if condition.is_expected else (skip, 0)
            # Little-endian, as both machines are: the lower half comes first.
            offset = _ARGUMENTS_OFFSET + condition.argument * _ARGUMENT_SIZE
            code = [
                (_LOAD, 0, 0, offset),
                (condition.comparison.value, *distances, condition.value & 0xFFFFFFFF),
                *code,
            ]
        block += code
    return [*block, (_RETURN, 0, 0, _RETURN_ALLOW)]


def install(program: Sequence[Instruction], machine: Machine) -> None:
    """Puts `program` between this thread and the kernel, for good, and for all it starts.

    To be called while the process has one thread: the others would stay as they are. New privileges
    have to be forbidden already (prctl(2)); else the kernel takes a filter from root alone.

    Raises:
        OSError: The kernel refused; nothing has changed.
    """
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*step) for step in program))
    described = _PROGRAM.pack(len(program), ctypes.addressof(code))
    # prctl(2), not seccomp(2): gVisor has had the former for longer.
    result, error = make_system_call(
        machine.numbers["prctl"], _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described, 0, 0
    )
    if result != 0:
        raise OSError(error, f"no seccomp filter: {os.strerror(error)}")
