"""The walls in an attack's way with the answers they give, as most attacks need them.

Without it the same errors would be listed again with each attack, and one list would be wrong.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Barrier
from orchestrator.attacks.walls import Wall


def barrier(wall: Wall, *answers: str) -> Barrier:
    """Returns a wall with the answers it gives."""
    return Barrier(wall=wall, answers=frozenset(answers))


#: What both filters answer: EPERM, and ENOSYS for calls that a library can do without.
REPL_FILTER: Final = barrier(Wall.REPL_SYSTEM_CALLS, "EPERM", "ENOSYS")
#: Sockets of other families are refused as a kernel without them would.
FILTER: Final = barrier(Wall.SYSTEM_CALLS, "EPERM", "ENOSYS", "EAFNOSUPPORT")
CAPABILITIES: Final = barrier(Wall.CAPABILITIES, "EPERM")
USER: Final = barrier(Wall.USER, "EACCES", "EPERM")
LANDLOCK: Final = barrier(Wall.LANDLOCK, "EACCES", "EPERM")
READ_ONLY: Final = barrier(Wall.READ_ONLY_ROOT, "EROFS")
MASKED: Final = barrier(Wall.MASKED_PATHS, "EROFS", "nothing in it")
#: It is not there: nothing in the image, nothing that the runtime makes.
ABSENT: Final = barrier(Wall.IMAGE, "ENOENT", "ENXIO", "ENODEV", "ENOTDIR", "none")
NAMESPACES: Final = barrier(Wall.NAMESPACES, "ESRCH", "none", "its own")
#: No route, no device, and behind loopback nobody but the sandbox itself.
NETWORK: Final = barrier(
    Wall.NETWORK, "ENETUNREACH", "ECONNREFUSED", "ENETDOWN", "EADDRNOTAVAIL", "EHOSTUNREACH", "none"
)
#: The kernel was built without it.
KERNEL: Final = barrier(Wall.KERNEL, "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")
#: What a system call that only a privileged process may make meets, from the inside out.
PRIVILEGED: Final = (REPL_FILTER, FILTER, CAPABILITIES, KERNEL)
#: What one meets that any process may make, were it not for the filters.
FILTERED: Final = (REPL_FILTER, FILTER, KERNEL)
#: What a file of the image's root or of the kernel's meets.
ROOT_FILES: Final = (READ_ONLY, USER, LANDLOCK, MASKED, ABSENT)
