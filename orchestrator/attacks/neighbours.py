"""Attacks on other sandboxes, and looks at what a sandbox shares with its host.

Without them two tenants would be apart because nothing was seen to join them.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group, Judge, Position
from orchestrator.attacks.barriers import FILTER, LANDLOCK, NETWORK, REPL_FILTER, barrier
from orchestrator.attacks.judges import refused, refused_later
from orchestrator.attacks.walls import Wall

_CELL = (Position.CELL,)


def _attack(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    barriers: tuple[Barrier, ...],
    later: str = "",
    positions: tuple[Position, ...] = _CELL,
    known_as: str = "",
) -> Attack:
    judge: Judge = refused_later if later else refused
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.NEIGHBOURS,
        threat="tidiness",
        barriers=barriers,
        source=source,
        judge=judge,
        positions=positions,
        is_apart=not later,  # what the first one holds has to outlast its cell
        later=later,
        is_later_elsewhere=bool(later),
        known_as=known_as,
    )


NEIGHBOUR_ATTACKS: Final = (
    _attack(
        "files-of-another",
        "find files that another sandbox has written",
        """
for folder in ("/tmp", "/dev/shm"):
    with open(f"{folder}/rlm-left", "w") as file:
        file.write("for whoever comes next")
return {"left": "done"}
""",
        later="""
return {folder: "done" if os.path.exists(f"{folder}/rlm-left") else "none"
        for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run/lock")}
""",
        barriers=(barrier(Wall.MOUNTS, "none"),),
        known_as="piston: file_persistance",
    ),
    _attack(
        "locks-of-another",
        "talk to another sandbox by locking a file that both have",
        """
import fcntl
held = globals().setdefault("locked", [])
answers = {}
for path in (sys.executable, "/etc/passwd", "/proc/self/ns/user", "/proc/self/ns/time"):
    try:
        descriptor = os.open(path, os.O_RDONLY)
        held.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        answers[path] = "done"
    except OSError as error:
        answers[path] = named(error.errno)
return answers
""",
        # A lock that is taken is what the other one meant to say.
        later="""
import fcntl
answers = {}
for path in (sys.executable, "/etc/passwd", "/proc/self/ns/user", "/proc/self/ns/time"):
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        answers[path] = named(error.errno)
        continue
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        answers[path] = "none"
    except BlockingIOError:
        answers[path] = "done"
    except OSError as error:
        answers[path] = named(error.errno)
    finally:
        os.close(descriptor)
return answers
""",
        barriers=(
            REPL_FILTER,
            LANDLOCK,
            barrier(Wall.NAMESPACES, "none", "ENOENT", "EACCES"),
        ),
        known_as="isolate 2.6",
    ),
    _attack(
        "names-of-another",
        "meet another sandbox at a socket that lies in no file system",
        """
try:
    line = socket.socket(socket.AF_UNIX)
    line.bind(chr(0) + SCENE["abstract_name"] + "-meeting")
    line.listen()
    globals().setdefault("meeting", []).append(line)
    return {"bound": "done"}
except OSError as error:
    return {"bound": named(error.errno)}
""",
        later="""
def dial():
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(chr(0) + SCENE["abstract_name"] + "-meeting")
return {"abstract name": attempt(dial)}
""",
        barriers=(REPL_FILTER, FILTER, LANDLOCK, NETWORK),
    ),
    _attack(
        "namespaces-of-the-host",
        "be in a namespace of the host's",
        """
answers = {}
for kind, host in SCENE["namespaces"].items():
    try:
        own = os.readlink(f"/proc/self/ns/{kind}")
        answers[kind] = "its own" if own != host else "done"
    except OSError as error:
        answers[kind] = "not here: this kernel does not tell" if error.errno == errno.ENOENT \\
            else named(error.errno)
return answers
""",
        barriers=(barrier(Wall.NAMESPACES, "its own", "EACCES"), LANDLOCK),
        positions=(Position.CELL, Position.WORKER),
    ),
    _attack(
        "name-of-the-host",
        "learn what the host is called",
        """
places = {"uname": os.uname().nodename, "gethostname": socket.gethostname()}
for path in ("/etc/hostname", "/etc/hosts", "/proc/sys/kernel/hostname", "/etc/resolv.conf"):
    try:
        with open(path) as file:
            places[path] = file.read()
    except OSError:
        places[path] = ""
return {place: "done" if SCENE["host_name"] in text.split() else "its own"
        for place, text in places.items()}
""",
        barriers=(barrier(Wall.NAMESPACES, "its own"),),
        positions=(Position.CELL, Position.WORKER),
    ),
)
