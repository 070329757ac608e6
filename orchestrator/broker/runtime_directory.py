"""The directory that holds the sockets of one orchestrator's sandboxes.

Without it a path that no socket fits in would be found out by a failed start, and a directory that
others may enter not at all.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.errors import SettingsError

SOCKET_NAME = "broker.sock"
#: `sun_path` has 108 bytes, the terminating NUL among them (unix(7)).
_MAX_PATH_BYTES = 107
#: What `tempfile.mkdtemp` puts after an empty prefix.
_SHORT_ID_CHARS = 8


def prepare_runtime_directory(directory: Path, *, depth: int = 1) -> None:
    """Makes sure that a socket can lie below `directory`, and that no other user gets to it.

    Args:
        directory: Made if missing, closed to other users.
        depth: How many directories made by `tempfile.mkdtemp` lie between it and the socket.

    Raises:
        SettingsError: The path is too long, is no directory, or is not closed to others.
    """
    longest = directory.joinpath(*["x" * _SHORT_ID_CHARS] * depth, SOCKET_NAME)
    path_bytes = len(os.fsencode(longest))
    if path_bytes > _MAX_PATH_BYTES:
        raise SettingsError(
            f"the path of a sandbox's socket would have {path_bytes} bytes, and unix(7) allows"
            f" {_MAX_PATH_BYTES}: set the runtime directory to one that is at least"
            f" {path_bytes - _MAX_PATH_BYTES} bytes shorter than {directory}, such as /run/rlm"
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # lstat: below a shared directory a link may be somebody else's.
        status = directory.lstat()
    except OSError as error:
        raise SettingsError(
            f"the runtime directory {directory} cannot be made: {error.strerror}"
        ) from error
    # Not corrected here: whoever set it to a shared directory, /tmp say, would not want it closed.
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_ours or stat.S_IMODE(status.st_mode) & 0o077:
        raise SettingsError(
            f"the runtime directory {directory} is {stat.filemode(status.st_mode)} of user"
            f" {status.st_uid}, so other users could reach the sockets in it: it must be a"
            " directory of this user and closed to others (chmod 700), and hold nothing else"
        )
