"""A cell that asks the kernel for what nothing in a sandbox needs.

The groups of refused calls are tried where the second stage is off: what is refused there, the
container's own filter refuses; under gVisor, which ignores it, the worker's.
"""

import errno
import platform
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TypeAlias

import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import open_provider, open_sandbox, told_in_another
from support.probes import goes_on, probe, run
from support.runtimes import RuntimeUnderTest, under_test
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import EMPTY_PROFILE, THE_RULES_OF_32_BITS, lift

from orchestrator.domain import Outcome, VariableState
from orchestrator.errors import SandboxStartError
from orchestrator.ports import Sandbox
from orchestrator.sandbox.seccomp_floor import FLOOR
from sandbox_image.first_stage import GROUPS

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: What came of each group's attempt, by the group's name; 0 is no error.
Errors: TypeAlias = dict[str, int]

NUMBERS = """
from sandbox_image.first_stage import GROUPS
from sandbox_image.repl.system_calls import make_system_call, this_machine
numbers = this_machine().numbers
"""
TRY_EACH_GROUP = f"""{NUMBERS}
tell({{name: make_system_call(numbers[group.attempt[0]], *group.attempt[1])[1]
      for name, group in GROUPS.items() if group.attempt[0] in numbers}})
"""
#: With arguments that no call does anything with, should it ever be let through.
TRY_EACH_CALL = f"""{NUMBERS}
tell({{call: make_system_call(numbers[call], *[-1] * 6)[1]
      for group in GROUPS.values() if not group.conditions
      for call in group.calls if call in numbers}})
"""
#: gVisor's own kernel does not have these, or keeps them from whoever has no capability.
REFUSED_BY_GVISOR = frozenset(
    {
        "processor-tables",
        "page-faults",
        "mounts",
        "clone3",
        "clock",
        "host-administration",
        "obsolete",
    }
)
OPEN = together(NO_SECOND_STAGE, lift(*FLOOR))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def errors(bare_sandbox: Sandbox) -> Errors:
    """What each group's attempt meets in a sandbox."""
    found: Errors = await probe(bare_sandbox, TRY_EACH_GROUP)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_sandbox_of_all_groups(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    """A sandbox in which no group is refused."""
    assert runtime == under_test()
    async with open_sandbox(weakening=OPEN) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def errors_when_open(open_sandbox_of_all_groups: Sandbox) -> Errors:
    """What the same attempts meet without the filter: each fails otherwise, or does nothing."""
    found: Errors = await probe(open_sandbox_of_all_groups, TRY_EACH_GROUP)
    return found


def skip_where_there_is_none(name: str, errors: Errors) -> None:
    if name not in errors:
        pytest.skip(f"no machine of this kind has what the group {name} is about")


@pytest.mark.parametrize("name", FLOOR)
async def test_group_is_refused(name: str, errors: Errors) -> None:
    """One call of each group is tried, and told the group's own error."""
    skip_where_there_is_none(name, errors)

    assert errno.errorcode[errors[name]] == errno.errorcode[FLOOR[name].error]


@pytest.mark.parametrize("name", FLOOR)
async def test_group_control(
    name: str, errors_when_open: Errors, open_sandbox_of_all_groups: Sandbox
) -> None:
    """With the group lifted the same call gets past the filter, and fails on its own merits."""
    skip_where_there_is_none(name, errors_when_open)
    if open_sandbox_of_all_groups.runtime != "runc" and name in REFUSED_BY_GVISOR:
        pytest.skip("gVisor's own kernel refuses it, with a filter and without")

    assert errors_when_open[name] not in {errno.EPERM, errno.ENOSYS}


async def test_every_call_of_every_group_is_refused(bare_sandbox: Sandbox) -> None:
    """No call got into its group by mistake, or past it: each is refused, or unknown here."""
    found: Errors = await probe(bare_sandbox, TRY_EACH_CALL)

    assert len(found) > 120
    assert {
        call: errno.errorcode.get(error, "done")
        for call, error in found.items()
        if error not in {errno.EPERM, errno.ENOSYS}
    } == {}


async def test_a_cell_meets_no_open_group_either(shared_sandbox: Sandbox) -> None:
    """What the REPL process refuses on top takes nothing away from what the container refuses."""
    found: Errors = await probe(shared_sandbox, TRY_EACH_GROUP)

    assert {name: errno.errorcode.get(error, "done") for name, error in found.items()} == {
        name: errno.errorcode[FLOOR[name].error] for name in found
    }


#: getpid by `int 0x80`, and by the number that x32 has for it; each in a child, as it ends its
#: caller. Tells how the children ended.
CALL_BY_32_BITS = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
ways = [ctypes.CFUNCTYPE(ctypes.c_int)(at), lambda: ctypes.CDLL(None).syscall(0x40000027)]
ends = []
for way in ways:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if way() == os.getpid() else 7)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
tell(ends)
"""
SIGSYS = 31


async def test_the_rules_of_32_bits_end_their_caller(bare_sandbox: Sandbox) -> None:
    """Numbers mean other calls there: a list of names would let through what it never named."""
    skip_where_there_are_no_32_bits(bare_sandbox)

    assert await probe(bare_sandbox, CALL_BY_32_BITS) == [-SIGSYS, -SIGSYS]


async def test_the_rules_of_32_bits_control(bare_sandbox: Sandbox) -> None:
    """As engines' own profiles have it the same code runs, where the kernel was built for it."""
    skip_where_there_are_no_32_bits(bare_sandbox)

    told = await told_in_another(
        CALL_BY_32_BITS, weakening=together(NO_SECOND_STAGE, THE_RULES_OF_32_BITS)
    )

    assert -SIGSYS not in told


def skip_where_there_are_no_32_bits(sandbox: Sandbox) -> None:
    if sandbox.runtime != "runc" or platform.machine() != "x86_64":
        pytest.skip("only the kernel of an x86_64 host has them; gVisor's has not")


async def test_interpreter_that_calls_by_32_bits_costs_its_cell(sandbox: Sandbox) -> None:
    """A cell that ends itself that way is rolled back like any other."""
    skip_where_there_are_no_32_bits(sandbox)
    await run(sandbox, "before = 41")

    result = await run(
        sandbox, f"before = 0\n{CALL_BY_32_BITS.partition('ends = []')[0]}\nways[1]()"
    )

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert await goes_on(sandbox)


async def test_sandbox_whose_calls_are_open_runs_no_cell(
    errors: Errors, bare_sandbox: Sandbox
) -> None:
    """A worker that finds calls open is refused before the first cell, and each of them named."""
    unannounced = replace(lift(*FLOOR), walls=())
    async with open_provider(weakening=unannounced) as provider:
        with pytest.raises(SandboxStartError, match="open_calls: promised") as caught:
            async with provider.open(EchoQueries()):
                pass

    refused_anyway = frozenset() if bare_sandbox.runtime == "runc" else REFUSED_BY_GVISOR
    for name in errors.keys() - refused_anyway:
        assert repr(GROUPS[name].label) in str(caught.value)


async def test_empty_profile_runs_no_cell() -> None:
    """An engine takes `{}` and switches seccomp off without a word: the worker sees that it is."""
    async with open_provider(weakening=EMPTY_PROFILE) as provider:
        with pytest.raises(SandboxStartError, match="seccomp_mode: promised 2, found 0"):
            async with provider.open(EchoQueries()):
                pass
