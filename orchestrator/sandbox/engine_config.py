"""Adds a runtime to the engine's configuration file, and loses nothing that is in it.

Without it gVisor would be registered by hand, or by a program that writes the file anew: an
operator's registry mirror, log driver or address pool would be gone with the next reload.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.errors import SettingsError

#: Where the engine reads it unless started with --config-file (dockerd(8)).
CONFIG_FILE: Final = Path("/etc/docker/daemon.json")
_INDENT: Final = 4  # as the engine's own documentation has it
_NEW_FILE_MODE: Final = 0o644


def with_runtime(text: str, *, name: str, path: str, arguments: Sequence[str]) -> str:
    """Returns the configuration with one more runtime in it; everything else is as it was.

    Args:
        text: The file as it is; empty where there is none.
        name: What the engine is to call the runtime.
        path: Its program.
        arguments: What the program is called with, every time.

    Raises:
        SettingsError: The text is no JSON object, says something twice, or has a runtime of that
            name already. What it would become is not to be guessed.
    """
    config = _parse(text)
    runtimes = config.get("runtimes", {})
    if not isinstance(runtimes, dict):
        raise SettingsError(
            f"{CONFIG_FILE}: `runtimes` is not an object; correct it. Nothing was changed."
        )
    if name in runtimes:
        raise SettingsError(
            f"{CONFIG_FILE} has a runtime {name} already, which the engine has not read; reload "
            "the engine (systemctl reload docker), or correct it. Nothing was changed."
        )
    entry = {"path": path, "runtimeArgs": list(arguments)}
    return json.dumps({**config, "runtimes": {**runtimes, name: entry}}, indent=_INDENT) + "\n"


def _parse(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        config = json.loads(text, object_pairs_hook=_only_once)
    except ValueError as error:
        raise SettingsError(
            f"{CONFIG_FILE} is not JSON ({error}); correct it. Nothing was changed."
        ) from error
    if not isinstance(config, dict):
        raise SettingsError(f"{CONFIG_FILE} is not a JSON object; correct it. Nothing was changed.")
    return config


def _only_once(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is said twice in one object")
    return found


def read_config(file: Path) -> str:
    """Returns the configuration as it is; an empty text where there is no file.

    Raises:
        SettingsError: It cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}. Nothing was changed.") from error


def write_config(file: Path, text: str) -> None:
    """Puts `text` in the file's place at once: an engine that starts meanwhile reads one or other.

    Mode and owner stay; a symbolic link stays one. Without a text the file is removed.

    Raises:
        SettingsError: It cannot be written.
    """
    target = file.resolve()
    try:
        if not text:
            target.unlink(missing_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=".rlm-", delete=False
        ) as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        _copy_standing(target, Path(new.name))
        Path(new.name).replace(target)
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error}.") from error


def _copy_standing(old: Path, new: Path) -> None:
    if old.exists():
        status = old.stat()
        os.chown(new, status.st_uid, status.st_gid)
        new.chmod(status.st_mode & 0o7777)
    else:
        new.chmod(_NEW_FILE_MODE)
