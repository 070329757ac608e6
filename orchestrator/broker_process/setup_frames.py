"""What a broker's process has to know of its sandbox, and what it finds: limits and walls.

Without it each new limit or wall would have to be spelt out once more on both sides, and the one
that was forgotten would be a limit nobody enforces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from orchestrator.broker_process.fields import Fields, FrameError, checked_integer, checked_text
from orchestrator.domain import Json, LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits

_Limits = TypeVar("_Limits", CellLimits, QueryLimits, SandboxLimits)

_MAX_NAME_CHARS = 200
#: Within the directory of a broker's process: what the sandbox is to see. As short as a name that
#: `tempfile.mkdtemp` makes.
SOCKET_DIRECTORY_NAME: Final = "sandbox"
#: More than any list of walls has: the broker itself takes fewer.
_MAX_WALL_ITEMS = 1024
_WALL_TYPES: Final[Mapping[str, Any]] = get_type_hints(Walls)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """Everything a broker is made of, but for where its queries go."""

    sandbox_id: SandboxId
    promised_walls: Walls
    cell_limits: CellLimits
    query_limits: QueryLimits
    sandbox_limits: SandboxLimits
    language_policy: LanguagePolicy
    stop_margin_s: float
    log_level: int


def listening_fields(walls: Sequence[str]) -> dict[str, Json]:
    """Returns the fields of a `Said.LISTENING`: what shuts the process in, by name.

    It is said when its socket is open, before any sandbox can have dialled.
    """
    return {"walls": list(walls)}


def read_listening(fields: Fields) -> tuple[str, ...]:
    """Returns what `listening_fields` was given.

    Raises:
        FrameError: They are not its fields.
    """
    walls = fields.items("walls", most=_MAX_WALL_ITEMS)
    return tuple(_checked_name(wall, "walls") for wall in walls)


def set_up_fields(set_up: SetUp) -> dict[str, Json]:
    """Returns the fields of a `Told.SET_UP`."""
    return {
        "sandbox_id": set_up.sandbox_id,
        "promised_walls": wall_fields(set_up.promised_walls),
        "cell": asdict(set_up.cell_limits),
        "query": asdict(set_up.query_limits),
        "sandbox": asdict(set_up.sandbox_limits),
        "language_policy": set_up.language_policy,
        "stop_margin_s": set_up.stop_margin_s,
        "log_level": set_up.log_level,
    }


def read_set_up(fields: Fields) -> SetUp:
    """Returns what `set_up_fields` was given.

    Raises:
        FrameError: They are not its fields.
    """
    return SetUp(
        sandbox_id=SandboxId(fields.text("sandbox_id", max_chars=_MAX_NAME_CHARS)),
        promised_walls=read_walls(fields.fields("promised_walls"), is_promise=True),
        cell_limits=_read_limits(CellLimits, fields.fields("cell")),
        query_limits=_read_limits(QueryLimits, fields.fields("query")),
        sandbox_limits=_read_limits(SandboxLimits, fields.fields("sandbox")),
        language_policy=fields.member("language_policy", LanguagePolicy),
        stop_margin_s=fields.number("stop_margin_s", most=1e9),
        log_level=fields.integer("log_level"),
    )


def wall_fields(walls: Walls) -> dict[str, Json]:
    """Returns walls as fields of a frame."""
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(walls).items()
    }


def read_walls(fields: Fields, *, is_promise: bool = False) -> Walls:
    """Returns what `wall_fields` was given.

    Args:
        fields: As they came.
        is_promise: Whether any wall may be missing: nothing is promised of it then.

    Raises:
        FrameError: They are not its fields.
    """
    # Any: mypy cannot see that each wall is read as what `Walls` says it is.
    walls: dict[str, Any] = {
        name: None if is_promise and fields.is_null(name) else _read_wall(fields, name, kind)
        for name, kind in _WALL_TYPES.items()
    }
    return Walls(**walls)


def _read_wall(fields: Fields, name: str, kind: object) -> object:
    """Returns one wall, which has the type that `Walls` says it has."""
    kinds = (kind,) if get_origin(kind) in {frozenset, dict} else get_args(kind)
    if type(None) in kinds and fields.is_null(name):
        return None
    wanted = next(candidate for candidate in kinds if candidate is not type(None))
    if wanted is bool:
        return fields.flag(name)
    if wanted is int:
        return fields.integer(name, least=-(2**63), most=2**64 - 1)
    if get_origin(wanted) is dict:
        found = fields.fields(name)
        return {
            _checked_name(item, name): found.integer(item)
            for item in found.names(most=_MAX_WALL_ITEMS)
        }
    items = fields.items(name, most=_MAX_WALL_ITEMS)
    if get_args(wanted) == (int,):
        return frozenset(checked_integer(item, name) for item in items)
    return frozenset(_checked_name(item, name) for item in items)


def _checked_name(item: object, name: str) -> str:
    if not isinstance(item, str) or len(item) > _MAX_NAME_CHARS:
        raise FrameError(f"{name} lists short names")
    return checked_text(item, name)


def _read_limits(kind: type[_Limits], fields: Fields) -> _Limits:
    """Returns limits, each a number as its default is."""
    values: dict[str, Any] = {
        name: fields.integer(name) if wanted is int else fields.number(name, most=1e12)
        for name, wanted in get_type_hints(kind).items()
    }
    return kind(**values)
