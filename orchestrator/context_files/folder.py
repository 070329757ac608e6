"""The files of a folder that are worth reading, and a word about those that are not.

Without it a link could lead out of the folder to a key, a loop of links would never end, a pipe
would be waited on for ever, and what was left out would be missed by nobody.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class LeftOut:
    """What a folder holds that is not in its context."""

    hidden: int = 0
    binary: int = 0
    unreadable: int = 0
    links: int = 0
    special: int = 0

    def notes(self, name: str) -> tuple[str, ...]:
        """Returns one sentence for each kind there was."""
        counted = (
            (self.hidden, "hidden: a name that begins with a dot; name it to have it read"),
            (self.binary, "binary, or text of another encoding"),
            (self.unreadable, "unreadable"),
            (self.links, "links to folders, out of this one, or to nothing"),
            (self.special, "neither file nor folder"),
        )
        return tuple(f"{name}: left out {n:,} ({why})" for n, why in counted if n)


def files_below(root: Path, left_out: LeftOut) -> list[Path]:
    """Returns the regular files below a folder, in the order of their whole paths.

    Hidden files and folders are left out, because that is where keys and the records of other
    programs are (`.env`, `.git`); so are links that lead out of the folder, or to a folder.
    """
    found: list[Path] = []
    real_root = os.path.realpath(root)

    def count_folder(_error: OSError) -> None:
        left_out.unreadable += 1

    for folder, names, files in os.walk(root, onerror=count_folder):
        left_out.links += sum(
            not _is_hidden(name) and Path(folder, name).is_symlink() for name in names
        )
        left_out.hidden += sum(map(_is_hidden, [*names, *files]))
        names[:] = (name for name in names if not _is_hidden(name))
        for name in files:
            path = Path(folder, name)
            if not _is_hidden(name) and _is_wanted(path, real_root, left_out):
                found.append(path)
    # By whole path, not folder by folder: the order of the names is then plain to a model.
    return sorted(found, key=lambda path: path.parts)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_wanted(path: Path, real_root: str, left_out: LeftOut) -> bool:
    """Says whether a file is to be read; counts it if not."""
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing, or in a circle, or a file that has just gone
        left_out.links += 1
        return False
    if path.is_symlink():
        way = Path(os.path.relpath(os.path.realpath(path), real_root)).parts
        if way[0] == os.pardir:
            left_out.links += 1
            return False
        if any(map(_is_hidden, way)):
            left_out.hidden += 1
            return False
    if not stat.S_ISREG(mode):  # a FIFO would block, and a device has no end
        left_out.special += 1
        return False
    return True
