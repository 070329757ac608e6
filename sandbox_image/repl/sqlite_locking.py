"""Lets cells keep SQLite databases in files although no cell may lock a file.

Without it `sqlite3.connect("/tmp/work.db")` would end at its first statement with "access
permission denied": SQLite locks with fcntl(2), which the REPL process has given up.
"""

from __future__ import annotations

import ctypes
from types import ModuleType

_LIBRARY = "libsqlite3.so.0"
#: Locks a database by making a directory beside it, NAME.lock (sqlite.org/vfs.html). "unix-none",
#: the other one that asks the kernel for no lock, would let two connections spoil a file silently.
_FILE_SYSTEM = b"unix-dotfile"


def lock_by_directory(_sqlite3: ModuleType) -> None:
    """Makes it the default of the library that the module has loaded."""
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
