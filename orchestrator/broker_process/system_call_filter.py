"""Turns the list of allowed system calls into a program for the kernel, and installs it.

Without it whoever takes over a broker's process through its parsers could run programs, open files
and sockets, and read the memory of the orchestrator.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from orchestrator.broker_process.kernel import system_call
from orchestrator.broker_process.system_calls import (
    ALLOWED,
    MACHINES,
    Condition,
    Machine,
    OneOf,
    conditions,
)

# <linux/bpf_common.h>
_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_SET = 0x45
_RETURN = 0x06
# struct seccomp_data: what the program may look at.
_NUMBER_OFFSET = 0
_ARCH_OFFSET = 4
_ARGUMENTS_OFFSET = 16
_ARGUMENT_BYTES = 8
# <linux/seccomp.h>
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_ALLOW = 0x7FFF0000
_SET_MODE_FILTER = 1
_FLAG_TSYNC = 1
_MAX_CONDITIONAL_JUMP = 255

_Instruction: TypeAlias = tuple[int, int, int, int]


def install_filter() -> None:
    """Refuses every system call but the allowed ones, in every thread of this process.

    A refused call fails with EPERM. `no_new_privs` must be set.

    Raises:
        OSError: The kernel refused, or has no filters for this machine.
    """
    name = os.uname().machine
    machine = MACHINES.get(name)
    if machine is None:
        raise OSError(errno.ENOTSUP, f"there is no list of system calls for the machine {name}")
    code = assemble(build_program(machine))
    program = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog, padded as the compiler pads it.
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
    failed_thread = system_call(
        machine.seccomp,
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_FLAG_TSYNC),
        ctypes.c_char_p(header),
    )
    if failed_thread:
        raise OSError(errno.EBUSY, f"thread {failed_thread} has a filter of its own")


def build_program(machine: Machine) -> list[_Instruction]:
    """Returns the program: which call, then its arguments, else EPERM."""
    needed = conditions()
    program: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _ARCH_OFFSET),
        (_JUMP_IF_EQUAL, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, _KILL_PROCESS),  # the 32-bit door into a 64-bit kernel
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
    ]
    # Its flags lie in memory, where no filter can see them. glibc takes the older call on ENOSYS,
    # and only on that.
    program += _rule(machine.clone3, [(_RETURN, 0, 0, _ERRNO | errno.ENOSYS)])
    for name, numbers in ALLOWED.items():
        number = numbers[machine.column]
        if number is not None:
            program += _rule(number, _checks(needed.get(name, ())))
    program.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return program


def assemble(program: Iterable[_Instruction]) -> bytes:
    """Returns a program as the kernel takes it: `struct sock_filter`, one after the other."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _rule(number: int, then: Sequence[_Instruction]) -> list[_Instruction]:
    """Returns: if the call has this number, do `then`, which ends with a verdict."""
    if len(then) > _MAX_CONDITIONAL_JUMP:
        raise ValueError(f"a rule of {len(then)} instructions cannot be jumped over")
    return [(_JUMP_IF_EQUAL, 0, len(then), number), *then]


def _checks(needed: Sequence[Condition]) -> list[_Instruction]:
    checks: list[_Instruction] = []
    for condition in needed:
        # Both machines are little-endian: the lower half of an argument comes first.
        offset = _ARGUMENTS_OFFSET + _ARGUMENT_BYTES * condition.argument
        checks.append((_LOAD_WORD, 0, 0, offset))
        if isinstance(condition, OneOf):
            count = len(condition.values)
            checks += [
                (_JUMP_IF_EQUAL, count - index, 0, value)
                for index, value in enumerate(condition.values)
            ]
        else:
            checks.append((_JUMP_IF_SET, 0, 1, condition.bits))
        checks.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return [*checks, (_RETURN, 0, 0, _ALLOW)]
