"""Attacks that flood: processes, threads, memory, CPU, output, all at once and without an end.

Without them nobody would know that a session outlives its worst cell.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group, Position
from orchestrator.attacks.barriers import barrier
from orchestrator.attacks.judges import SESSION, survived
from orchestrator.attacks.walls import Wall


def _flood(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    threat: str,
    barriers: tuple[Barrier, ...],
    timeout_s: float = 20.0,
    is_heavy: bool = False,
    why_lost_under_gvisor: str = "",
) -> Attack:
    """Returns an attack after which the session has to go on."""
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.RESOURCES,
        threat=threat,
        barriers=barriers,
        source=source,
        judge=survived,
        positions=(Position.CELL,),
        is_apart=False,
        is_destructive=True,
        is_heavy=is_heavy,
        timeout_s=timeout_s,
        open_under_gvisor=frozenset({SESSION} if why_lost_under_gvisor else ()),
        why_open=why_lost_under_gvisor,
    )


_MEMORY = barrier(Wall.MEMORY_LIMIT)
_PROCESSES = barrier(Wall.PROCESS_LIMIT)
_CPU = barrier(Wall.CPU_LIMIT)
_WORKER = barrier(Wall.WORKER)

FLOOD_ATTACKS: Final = (
    _flood(
        "fork-bomb",
        "start processes that start processes, and cannot be told to stop",
        """
for number in range(1, 32):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        attempt(signal.signal, number, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
""",
        threat="processes",
        barriers=(_PROCESSES, _WORKER),
        timeout_s=1.5,
        is_heavy=True,
        why_lost_under_gvisor=(
            "gVisor's own kernel may end in a storm of processes, and the sandbox with it: what"
            " that costs is this session"
        ),
    ),
    _flood(
        "thread-bomb",
        "take every thread that anybody gives up",
        """
import _thread
while True:
    try:
        _thread.start_new_thread(time.sleep, (1000,))
    except RuntimeError:
        pass
""",
        threat="processes",
        barriers=(_PROCESSES, _WORKER),
        timeout_s=1.5,
        is_heavy=True,
    ),
    _flood(
        "memory-in-one-piece",
        "bind a text that is larger than all memory",
        """
text = "a" * (SCENE["memory_bytes"] + 50 * 2**20)
return {"text": "done"}
""",
        threat="memory",
        barriers=(_WORKER, _MEMORY),
    ),
    _flood(
        "memory-in-files",
        "take memory as files without a name, which no process is charged for",
        """
descriptors = []
for number in range((SCENE["memory_bytes"] >> 20) + 50):
    if number % 50 == 0:
        descriptors.append(os.memfd_create("m"))
    os.write(descriptors[-1], b"a" * 2**20)
return {"files": "done"}
""",
        threat="memory",
        barriers=(_MEMORY, _WORKER),
        is_heavy=True,
    ),
    _flood(
        "endless-loop",
        "compute for ever, and ignore the interrupt",
        """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
        threat="cpu",
        barriers=(_WORKER, _CPU),
        timeout_s=1.0,
    ),
    _flood(
        "endless-number",
        "compute for ever where no interrupt is looked for",
        """
return {"digits": str(len(bin(10 ** 10 ** 9)))}
""",
        threat="cpu",
        barriers=(_WORKER, _CPU),
        timeout_s=1.0,
    ),
    _flood(
        "output-flood",
        "print more than anybody can keep",
        """
block = b"a" * 2**20
left = 256 * 2**20
while left:
    left -= os.write(1, block[:left])
return {"printed": "done"}
""",
        threat="output",
        barriers=(_WORKER, barrier(Wall.BROKER)),
    ),
    _flood(
        "every-descriptor",
        "keep every descriptor, so that the platform has none left in this process",
        """
held = globals().setdefault("held", [])
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
return {"held": "done"}
""",
        threat="descriptors-and-files",
        barriers=(barrier(Wall.RLIMITS), _WORKER),
    ),
    _flood(
        "crash",
        "crash the interpreter",
        """
ctypes.string_at(0)
""",
        threat="descriptors-and-files",
        barriers=(_WORKER,),
    ),
)
