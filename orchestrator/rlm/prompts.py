"""What a caller may hand over as a prompt.

Without it `RLM` would take text alone, and every program would read its files by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from orchestrator.context import Encodable
from orchestrator.context_files import read_paths

_logger = logging.getLogger(__name__)

#: What JSON can hold, as a caller's types have it: a `list[str]` and a `dict[str, int]` are some.
Jsonable: TypeAlias = (
    "bool | int | float | str | Sequence[Jsonable] | Mapping[str, Jsonable] | None"
)
#: A context as it is (a list or a dict, whatever its types), or the files and folders it is to be
#: read from.
Prompt: TypeAlias = "str | Sequence[Jsonable] | Mapping[str, Jsonable] | Path | Sequence[Path]"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPrompt:
    """A prompt as a context, and what it is about as far as the names of its files tell."""

    context: Encodable
    domain: str = ""


async def found_prompt(prompt: Prompt, *, max_bytes: int) -> FoundPrompt:
    """Returns the context that a prompt is, or reads it.

    Args:
        prompt: As `RLM.completion` takes it.
        max_bytes: Of files and folders: more fits no sandbox.

    Raises:
        InputError: A file cannot be read, is no text, or is too large.
    """
    paths = [prompt] if isinstance(prompt, Path) else prompt
    if isinstance(paths, list | tuple) and paths and all(isinstance(p, Path) for p in paths):
        named = [path for path in paths if isinstance(path, Path)]
        found = await asyncio.to_thread(read_paths, named, max_bytes=max_bytes)
        for note in found.notes:
            _logger.info("%s", note)
        return FoundPrompt(context=found.value, domain=found.domain)
    # It holds no path, and is checked where it is encoded.
    return FoundPrompt(context=prompt)  # type: ignore[arg-type]  # see above
