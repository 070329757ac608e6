"""Lets the REPL process and its spares go on sharing memory.

Without it a context of many parts would be copied by every cell that looks at each of them. To hold
an object is to write into it, because Python counts its holders there, and a page that is written
to after a fork is copied: 400 MB of small documents took 1.2 GB once two cells had gone through
them. CPython neither counts the holders of an object that it calls immortal (PEP 683), nor frees
it; the contexts of a session stay for as long as it does, and so does what ran before its first
cell: modules, functions, what they are made of.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from types import FunctionType
from typing import Any, Final

#: What an immortal object has for its count: `_Py_IMMORTAL_REFCNT` of CPython 3.12 and 3.13.
_IMMORTAL: Final = 0xFFFF_FFFF
#: All memory, by number of a word of four bytes: an object begins with its count.
_words = (ctypes.c_uint32 * (sys.maxsize // 4)).from_address(0)


def share(parts: list[Any] | dict[str, Any]) -> None:
    """Makes what is in a list or dict of JSON immortal; the list or dict itself stays as it is.

    Does nothing under a Python whose objects are built otherwise.
    """
    if not _IS_UNDERSTOOD:
        return
    # A list, not recursion: parts may be nested as deeply as JSON can be read.
    waiting: list[Any] = [parts]
    while waiting:
        holder = waiting.pop()
        if type(holder) is dict:
            for key in holder:
                _words[id(key) >> 2] = _IMMORTAL
            held = holder.values()
        else:
            held = holder
        for item in held:
            _words[id(item) >> 2] = _IMMORTAL
            if type(item) is dict or type(item) is list:
                waiting.append(item)


def share_all() -> None:
    """Makes what there is immortal: all that the garbage collector knows, and code of functions.

    To be called before the first fork. Of the pages that a cell and its checkpoint write to, a
    third less is copied.
    """
    if not _IS_UNDERSTOOD:
        return
    objects = gc.get_objects()
    objects += [item.__code__ for item in objects if type(item) is FunctionType]
    for item in objects:
        _words[id(item) >> 2] = _IMMORTAL
    # It writes to each object that it looks at, too.
    gc.freeze()


def _is_understood() -> bool:
    """Says whether an object of this Python begins with a count that can be stopped; tries one."""
    probe = object()
    place = id(probe) >> 2
    if _words[place] != sys.getrefcount(probe) - 1:
        return False
    _words[place] = _IMMORTAL
    holders = [probe, probe]
    was_counted = _words[place] != _IMMORTAL
    holders.clear()
    return not was_counted and _words[place] == _IMMORTAL


_IS_UNDERSTOOD: Final = _is_understood()
