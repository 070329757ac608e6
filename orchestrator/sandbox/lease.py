"""Holds an orchestrator's claim on its containers, in a form the kernel drops when it dies.

Without it nobody could tell a container in use from one whose orchestrator was killed: a process
id is given out again, a timestamp needs a heartbeat, and a file says nothing about its writer. A
lock taken with flock(2) is gone the moment its holder is, however it went.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SettingsError

_PRIVATE_MODE = 0o700
_OTHERS_BITS = 0o077
_OWNER_ID_BYTES = 4  # short, because the path of a socket holds 108 bytes at most (unix(7))
_LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDirectory:
    """Where the orchestrators of one user keep what they need while they run.

    Holds `owners/<owner>.lock`, locked for as long as that orchestrator lives, and
    `sockets/<owner>/`, where it puts the sockets of its sandboxes. `realm` tells containers of
    this directory from those of another one, whose locks cannot be seen from here.
    """

    path: Path
    realm: str

    @property
    def owners(self) -> Path:
        """Where the locks are."""
        return self.path / "owners"

    @property
    def sockets(self) -> Path:
        """Where each owner's socket directory is."""
        return self.path / "sockets"

    def lock_of(self, owner: str) -> Path:
        """Returns the path of an owner's lock."""
        return self.owners / f"{owner}{_LOCK_SUFFIX}"

    def known_owners(self) -> frozenset[str]:
        """Returns every owner that left a lock or a socket directory here."""
        locks = {lock.name.removesuffix(_LOCK_SUFFIX) for lock in self.owners.iterdir()}
        return frozenset(locks | {directory.name for directory in self.sockets.iterdir()})

    def is_alive(self, owner: str) -> bool:
        """Whether an owner still holds its lock. One whose lock is missing does not."""
        with _try_lock(self.lock_of(owner)) as was_free:
            return was_free is False

    def forget(self, owner: str) -> None:
        """Removes a dead owner's socket directory and its lock; does nothing to a living one's."""
        lock = self.lock_of(owner)
        with _try_lock(lock) as was_free:
            if was_free is False:
                return
            shutil.rmtree(self.sockets / owner, ignore_errors=True)
            lock.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One orchestrator's claim, held until the context that made it is left.

    Attributes:
        owner: Names this orchestrator in the labels of its containers; never given out twice.
        socket_root: A directory for the sockets of its sandboxes; removed with the lease.
        runtime_directory: Where the claim is kept.
    """

    owner: str
    socket_root: Path
    runtime_directory: RuntimeDirectory


def open_runtime_directory(path: Path) -> RuntimeDirectory:
    """Makes the directory if it is not there, closed to other users, and returns it.

    Raises:
        SettingsError: It is not a directory of this user's own, or open to others: whoever can
            enter it can speak to a broker as a sandbox.
    """
    for directory in (path, path / "owners", path / "sockets"):
        _make_private(directory)
    return RuntimeDirectory(path=path, realm=_read_realm(path / "realm"))


@contextmanager
def hold_lease(path: Path) -> Iterator[Lease]:
    """Claims a new owner's name in the runtime directory at `path` until the context is left.

    Raises:
        SettingsError: See `open_runtime_directory`.
    """
    runtime_directory = open_runtime_directory(path)
    while True:
        owner = secrets.token_hex(_OWNER_ID_BYTES)
        lock = runtime_directory.lock_of(owner)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A sweep of another orchestrator may have found the file before it was locked, taken it
        # for a dead owner's and removed it: then this lock is on a file that nobody can find.
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    try:
        socket_root = runtime_directory.sockets / owner
        socket_root.mkdir(mode=_PRIVATE_MODE)
        yield Lease(owner=owner, socket_root=socket_root, runtime_directory=runtime_directory)
    finally:
        os.close(descriptor)
        runtime_directory.forget(owner)


@contextmanager
def _try_lock(lock: Path) -> Iterator[bool | None]:
    """Yields whether a lock was free, holding it meanwhile; None where there is no such file."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _make_private(directory: Path) -> None:
    advice = (
        "expected one of this user's own, closed to all others. Remove it, or name another one "
        "with the setting `runtime_directory`."
    )
    try:
        directory.mkdir(mode=_PRIVATE_MODE, parents=True, exist_ok=True)
        status = directory.lstat()  # not stat: in /tmp anybody may have put a link there first
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        message = f"Cannot use the directory {directory} ({reason}); {advice}"
        raise SettingsError(message) from error
    is_private = (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & _OTHERS_BITS
    )
    if not is_private:
        message = (
            f"Cannot use the directory {directory} (it belongs to user {status.st_uid}, mode "
            f"{stat.filemode(status.st_mode)}); {advice}"
        )
        raise SettingsError(message)


def _read_realm(path: Path) -> str:
    """Returns the directory's own name for itself, made up by whoever opened it first."""
    draft = path.with_name(f"realm.{secrets.token_hex(_OWNER_ID_BYTES)}")
    draft.write_text(secrets.token_hex(8), "ascii")
    try:
        os.link(draft, path)  # unlike a rename, never replaces the name others may have read
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text("ascii")
