"""Reads the seccomp profile of sandboxes and refuses one that is less than it has to be.

Without it a file that was emptied, cut off or edited would be handed to the engine as it is, and
Docker takes `{}` for a profile and switches seccomp off without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import SettingsError
from orchestrator.sandbox.seccomp_floor import FLOOR, MACHINES, ArgumentTest, FloorGroup

_HERE = Path(__file__).parent
#: A wheel carries the file beside this module; a source tree has it with the other build files.
_PLACES: Final = (_HERE / "image_files/seccomp.json", _HERE.parents[1] / "docker/seccomp.json")
_SHOWN_GAPS = 5  # a file of another product misses every group; the first few tell

_Action = Literal["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialGroup:
    """System calls that are refused together.

    Attributes:
        name: As `seccomp_floor.FLOOR` has it.
        reason: One or two sentences, from the file.
        calls: By the kernel's names, in the file's order.
    """

    name: str
    reason: str
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeccompProfile:
    """A profile that is at least as strict as the floor.

    Attributes:
        text: What an engine is given: JSON without what is there for readers only.
        sha256: Of `text`, in hexadecimal.
        groups: What it refuses, and why.
    """

    text: str
    sha256: str
    groups: tuple[DenialGroup, ...]


class _Part(BaseModel):
    # Nothing unknown: an engine ignores a field it does not know, so `arg` written for `args` would
    # allow a call with every argument; and `flags` or `includes` say things nobody here looks at.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Comparison(_Part):
    index: int = Field(ge=0, le=5)
    value: int = Field(ge=0, lt=2**64)
    second_value: int = Field(0, ge=0, lt=2**64, alias="valueTwo")
    operator: str = Field(alias="op")

    def as_test(self) -> ArgumentTest:
        return ArgumentTest(
            index=self.index,
            operator=self.operator,
            value=self.value,
            second_value=self.second_value,
        )


class _Rule(_Part):
    comment: str = Field("", exclude=True)
    names: list[str] = Field(min_length=1)
    action: _Action
    # Not 0: a call that is refused with it looks as if it had been made.
    error: int | None = Field(None, alias="errnoRet", ge=1, le=4095)
    comparisons: list[_Comparison] = Field(default_factory=list, alias="args")


class _Architecture(_Part):
    name: str = Field(alias="architecture")
    # Nobody who runs 64 bits calls the kernel by the rules of 32, but for what they let through.
    others: list[str] = Field(alias="subArchitectures", max_length=0)


class _File(_Part):
    comment: list[str] = Field(default_factory=list, exclude=True)
    default_action: Literal["SCMP_ACT_ERRNO"] = Field(alias="defaultAction")
    default_error: Literal[1] = Field(alias="defaultErrnoRet")
    architectures: list[_Architecture] = Field(alias="archMap")
    rules: list[_Rule] = Field(alias="syscalls")


def read_profile(*places: Path) -> SeccompProfile:
    """Reads the profile that every sandbox is started with.

    Args:
        places: Where to look, the first that is there is read; by default where an installation
            and a source tree have it.

    Raises:
        SettingsError: There is none, it cannot be read as a profile, or it lets something through
            that has to be refused. Nothing weaker is taken instead.
    """
    path = _find(places or _PLACES)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror})") from error
    if not data.strip():
        raise _refusal(path, "is empty")
    try:
        file = _File.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(path, f"is no profile of this product:\n{_describe(error)}") from error
    gaps = tuple(_find_gaps(file))
    if gaps:
        shown = "\n".join(f"  {gap}" for gap in gaps[:_SHOWN_GAPS])
        rest = f"\n  and {len(gaps) - _SHOWN_GAPS} more" if len(gaps) > _SHOWN_GAPS else ""
        raise _refusal(path, f"is looser than it has to be:\n{shown}{rest}")
    text = _for_engine(file)
    return SeccompProfile(
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        groups=tuple(_groups(file)),
    )


def _find(places: tuple[Path, ...]) -> Path:
    for place in places:
        if place.is_file():
            return place
    raise _refusal(places[-1], "is not there")


def _refusal(path: Path, what_came: str) -> SettingsError:
    return SettingsError(
        f"The seccomp profile {path} {what_came}\n"
        "Expected the profile that was released with this version. No sandbox is started without "
        "it: reinstall rlm-sandbox, or restore the file from its source."
    )


def _describe(error: ValidationError) -> str:
    lines = []
    for gap in error.errors(include_url=False, include_input=False)[:_SHOWN_GAPS]:
        place = ".".join(str(part) for part in gap["loc"])
        lines.append(f"  {place}: {gap['msg']}" if place else f"  {gap['msg']}")
    return "\n".join(lines)


def _find_gaps(file: _File) -> Iterator[str]:
    """Yields a phrase for everything in which a profile falls short of the floor."""
    machines = {architecture.name for architecture in file.architectures}
    if machines != MACHINES:
        yield f"it is for {_list(machines)}; expected {_list(MACHINES)}"
    stated = {group.name: frozenset(group.calls) for group in _groups(file)}
    if len(stated) != len(FLOOR):
        yield f"it states {len(stated)} groups of refused calls; expected {len(FLOOR)}"
    for name, group in FLOOR.items():
        missing = group.calls - stated.get(name, frozenset())
        if missing:
            yield f"group {name} does not state {_list(missing)}"
        yield from _find_gaps_in(name, group, file.rules)


def _find_gaps_in(name: str, group: FloorGroup, rules: list[_Rule]) -> Iterator[str]:
    for rule in rules:
        calls = group.calls.intersection(rule.names)
        if not calls:
            continue
        if rule.action == "SCMP_ACT_ERRNO":
            if (rule.error, rule.comparisons) != (group.error, []):
                yield f"group {name}: {_list(calls)} is not refused with error {group.error}"
        # Two tests of one argument would be taken for "either", and of two arguments for "both":
        # each rule has one, which has to be one of the floor's own.
        elif len(rule.comparisons) != 1 or rule.comparisons[0].as_test() not in group.unless:
            condition = " with other arguments than expected" if group.unless else ""
            yield f"group {name}: {_list(calls)} is allowed{condition}"


def _groups(file: _File) -> Iterator[DenialGroup]:
    for rule in file.rules:
        if rule.action == "SCMP_ACT_ERRNO":
            name, _, reason = rule.comment.partition(": ")
            yield DenialGroup(name=name, reason=reason, calls=tuple(rule.names))


def _for_engine(file: _File) -> str:
    """Returns the profile without comments, and without rules that say what the default says.

    Runtimes before runc 1.1 take a rule for an error whose action is the default's.
    """
    default = (file.default_action, file.default_error)
    rules = [rule for rule in file.rules if (rule.action, rule.error) != default]
    return file.model_copy(update={"rules": rules}).model_dump_json(
        by_alias=True, exclude_none=True
    )


def _list(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
