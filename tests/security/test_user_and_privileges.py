"""What a cell's process may do by who it is: nothing that the kernel reserves for anybody."""

from dataclasses import replace

import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import (
    Weakening,
    open_provider,
    open_sandbox,
    told_in_another,
)
from support.probes import probe
from support.runtimes import RuntimeUnderTest
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import (
    BRIDGE_NETWORK,
    DEFAULT_CAPABILITIES,
    MORE_GROUPS,
    NEW_PRIVILEGES,
    NO_SECCOMP,
    ROOT_USER,
    ROOT_WITH_DEFAULT_CAPABILITIES,
    WRITABLE_ROOT,
)

from orchestrator.errors import SandboxStartError
from orchestrator.ports import Sandbox
from orchestrator.sandbox.spec import SANDBOX_GID, SANDBOX_UID

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: proc(5): real, effective, saved and file system ids; bit sets of capabilities in hexadecimal.
STATUS = """
lines = open("/proc/self/status").read().splitlines()
tell({name: value.split() for name, _, value in (line.partition(":") for line in lines)})
"""
#: What the engine gave the container; the REPL process takes more upon itself.
STATUS_OF_THE_WORKER = STATUS.replace("self", "1")
#: ADDR_NO_RANDOMIZE (personality(2)), which engines' own profiles leave out and any kernel has.
FIX_ADDRESSES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
tell("done" if libc.personality(0x0040000) >= 0 else errno.errorcode[ctypes.get_errno()])
"""
NEW_PRIVILEGES_FORBIDDEN = """
import ctypes
tell(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))  # PR_GET_NO_NEW_PRIVS (prctl(2))
"""
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
MAKE_A_DEVICE = "make a device (MKNOD)"
#: Each needs a capability, named after the call.
PRIVILEGED = {
    "become root (SETUID)": "os.setuid(0)",
    "take another group (SETGID)": "os.setgroups([0])",
    "give a file away (CHOWN)": "open('/tmp/f', 'w').close(); os.chown('/tmp/f', 1, 1)",
    MAKE_A_DEVICE: "os.mknod('/tmp/d', 0o600 | 0o020000, os.makedev(1, 3))",
    "read every packet (NET_RAW)": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()",
    "change the root (SYS_CHROOT)": "os.chroot('/tmp')",
}

UNASKED_BY_GVISOR = pytest.mark.runc_only("gVisor lets files be made that no driver is behind")


def attempting(statement: str) -> str:
    """Returns a cell that tells how a statement ends."""
    return f"def act(): {statement}\ntell(attempt(act))"


async def test_the_user_is_nobody_of_the_host(shared_sandbox: Sandbox) -> None:
    """All four ids are the sandbox's own, above those that hosts hand out, with no other group."""
    status = await probe(shared_sandbox, STATUS)

    assert SANDBOX_UID >= 10_000
    assert status["Uid"] == [str(SANDBOX_UID)] * 4
    assert status["Gid"] == [str(SANDBOX_GID)] * 4
    assert set(status["Groups"]) <= {str(SANDBOX_GID)}  # its own is listed by some engines


async def test_the_user_control() -> None:
    """The same file says otherwise in a container of root's, or of one more group."""
    assert (await told_in_another(STATUS, weakening=ROOT_USER))["Uid"] == ["0"] * 4
    assert "4242" in (await told_in_another(STATUS, weakening=MORE_GROUPS))["Groups"]


async def test_there_are_no_capabilities(
    shared_sandbox: Sandbox, runtime: RuntimeUnderTest
) -> None:
    """No set holds any, the bounding set included: none could be gained either."""
    status = await probe(shared_sandbox, STATUS)

    # gVisor has no ambient capabilities, and lists none.
    sets = [name for name in CAPABILITY_SETS if name in status or not runtime.is_gvisor]
    assert {name: int(status[name][0], 16) for name in sets} == dict.fromkeys(sets, 0)


async def test_there_are_no_capabilities_control() -> None:
    """The engine's default leaves some within reach."""
    status = await told_in_another(STATUS, weakening=DEFAULT_CAPABILITIES)

    assert int(status["CapBnd"][0], 16) != 0


@pytest.mark.gvisor_only("gVisor's list of a process's status does not have it")
async def test_no_privilege_can_be_gained_under_gvisor(shared_sandbox: Sandbox) -> None:
    """A setuid file, should there ever be one, gives nothing: the kernel says it when asked."""
    assert await probe(shared_sandbox, NEW_PRIVILEGES_FORBIDDEN) == 1


@pytest.mark.runc_only("gVisor's list of a process's status does not have it")
async def test_no_privilege_can_be_gained(shared_sandbox: Sandbox) -> None:
    """A setuid file, should there ever be one, gives nothing."""
    assert (await probe(shared_sandbox, STATUS))["NoNewPrivs"] == ["1"]
    assert (await probe(shared_sandbox, STATUS_OF_THE_WORKER))["NoNewPrivs"] == ["1"]


async def test_no_privilege_can_be_gained_control() -> None:
    """The engine's default allows it."""
    status = await told_in_another(STATUS_OF_THE_WORKER, weakening=NEW_PRIVILEGES)

    assert status["NoNewPrivs"] == ["0"]


async def test_system_calls_are_filtered(shared_sandbox: Sandbox) -> None:
    """A filter is in force, and it bites: the address space stays at random places."""
    assert (await probe(shared_sandbox, STATUS_OF_THE_WORKER))["Seccomp"] == ["2"]
    assert await probe(shared_sandbox, FIX_ADDRESSES) == "EPERM"


async def test_system_calls_are_filtered_control() -> None:
    """Without the filter the same call is anybody's."""
    async with open_sandbox(weakening=NO_SECCOMP) as unfiltered:
        assert (await probe(unfiltered, STATUS_OF_THE_WORKER))["Seccomp"] == ["0"]
        assert await probe(unfiltered, FIX_ADDRESSES) == "done"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=UNASKED_BY_GVISOR if name == MAKE_A_DEVICE else ())
        for name in PRIVILEGED
    ],
)
async def test_privileged_call_is_refused(bare_sandbox: Sandbox, name: str) -> None:
    """What needs a capability is refused, whichever it is, without the second stage as well."""
    assert await probe(bare_sandbox, attempting(PRIVILEGED[name])) in {"EPERM", "EACCES"}


async def test_privileged_call_control() -> None:
    """Root with the engine's default capabilities may do every one of them."""
    source = "\n".join(
        f"def act_{index}(): {statement}" for index, statement in enumerate(PRIVILEGED.values())
    )
    order = [4, 3, 2, 1, 5, 0]  # what takes rights away comes last
    acts = ", ".join(f"act_{index}" for index in order)

    told = await told_in_another(
        f"{source}\ntell([attempt(act) for act in ({acts})])",
        weakening=together(NO_SECOND_STAGE, ROOT_WITH_DEFAULT_CAPABILITIES),
    )

    assert told == ["done"] * len(PRIVILEGED)


#: By the wall's name in `Walls`, as the refusal names it.
MISSING = {
    "uid": ROOT_USER,
    "supplementary_gids": MORE_GROUPS,
    "bounding_capabilities": DEFAULT_CAPABILITIES,
    "is_root_read_only": WRITABLE_ROOT,
}
#: gVisor is registered without a network, and stands in for the other two; see `promised_walls`.
MISSING_UNDER_RUNC = {
    "network_interfaces": BRIDGE_NETWORK,
    "has_no_new_privileges": NEW_PRIVILEGES,
    "seccomp_mode": NO_SECCOMP,
}
ONLY_UNDER_RUNC = pytest.mark.runc_only("gVisor has no network to weaken, and reports neither wall")


@pytest.mark.parametrize(
    "wall",
    [*MISSING, *(pytest.param(wall, marks=ONLY_UNDER_RUNC) for wall in MISSING_UNDER_RUNC)],
)
async def test_sandbox_without_a_promised_wall_runs_no_cell(wall: str) -> None:
    """A worker that finds a wall missing is refused before the first cell, and the wall named.

    Its control is each of the controls above: told of the weakening, the same container starts.
    """
    unannounced: Weakening = replace((MISSING | MISSING_UNDER_RUNC)[wall], walls=())
    async with open_provider(weakening=unannounced) as provider:
        with pytest.raises(SandboxStartError, match=f"{wall}: promised"):
            async with provider.open(EchoQueries()):
                pass


async def test_the_environment_holds_nothing_of_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cell finds in its environment is the engine's and the image's, never the host's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")

    found: dict[str, str] = await told_in_another("tell(dict(os.environ))")

    assert set(found) <= {"PATH", "HOSTNAME", "HOME", "LC_CTYPE", "LANG"}
    assert found.get("HOSTNAME", "sandbox") == "sandbox"
