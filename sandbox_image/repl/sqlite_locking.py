"""Lets cells keep SQLite databases in files although no cell may lock a file.

Without it `sqlite3.connect("/tmp/work.db")` would end at its first statement with "access
permission denied": SQLite locks with fcntl(2), which the REPL process has given up.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LIBRARY = "libsqlite3.so.0"
#: Locks a database by making a directory beside it, NAME.lock (sqlite.org/vfs.html). "unix-none",
#: the other one that asks the kernel for no lock, would let two connections spoil a file silently.
_FILE_SYSTEM = b"unix-dotfile"


class _SqliteFinder(MetaPathFinder):
    """Sees the first import of SQLite's module, and finds nothing itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Prepares SQLite when its module is about to be loaded."""
        del path, target
        if name == "_sqlite3":
            sys.meta_path.remove(self)
            _lock_by_directory()
        return None


def keep_off_kernel_locks() -> None:
    """Sees to it that SQLite, once a cell imports it, locks by directories.

    Not at once: loading the library takes longer than all else that a REPL process does first.
    """
    sys.meta_path.insert(0, _SqliteFinder())


def _lock_by_directory() -> None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        # A Python with a SQLite of its own inside; then files cannot be used, as docs/usage.md says
        # for databases that choose their own locking.
        return
    library.sqlite3_vfs_find.restype = ctypes.c_void_p
    library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    library.sqlite3_vfs_register.argtypes = [ctypes.c_void_p, ctypes.c_int]
    if found := library.sqlite3_vfs_find(_FILE_SYSTEM):
        library.sqlite3_vfs_register(found, 1)
