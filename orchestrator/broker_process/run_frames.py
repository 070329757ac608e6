"""What a run begins with, from the orchestrator to a broker's process: its offer, and its contexts.

Without it both ends would spell the same fields out by themselves. The broker's process trusts what
it is told here.
"""

from __future__ import annotations

from orchestrator.broker.context_pieces import ContextHead
from orchestrator.broker_process.fields import Fields, FrameError
from orchestrator.domain import ContextKind, Json, OfferedTool, RunOffer

_MAX_NAME_CHARS = 1000
_MAX_TOOLS = 1024
_MAX_TEXT_CHARS = 10_000
_MAX_ALIASES = 16


def offer_fields(offer: RunOffer) -> dict[str, Json]:
    """Returns the fields of a `Told.BEGIN_RUN`."""
    return {
        "tools": [
            {"name": tool.name, "signature": tool.signature, "description": tool.description}
            for tool in offer.tools
        ]
    }


def read_offer(fields: Fields) -> RunOffer:
    """Returns what `offer_fields` was given.

    Raises:
        FrameError: They are not its fields.
    """
    tools = []
    for item in fields.items("tools", most=_MAX_TOOLS):
        tool = Fields(item)
        tools.append(
            OfferedTool(
                name=tool.text("name", max_chars=_MAX_NAME_CHARS),
                signature=tool.text("signature", max_chars=_MAX_TEXT_CHARS),
                description=tool.text("description", max_chars=_MAX_TEXT_CHARS),
            )
        )
    return RunOffer(tools=tuple(tools))


def bind_fields(name: str, head: ContextHead) -> dict[str, Json]:
    """Returns the fields of a `Told.BIND`."""
    return {
        "name": name,
        "kind": head.kind,
        "total_bytes": head.total_bytes,
        "sha256_hex": head.sha256_hex,
        "aliases": list(head.aliases),
    }


def read_bind(fields: Fields) -> tuple[str, ContextHead]:
    """Returns what `bind_fields` was given.

    Raises:
        FrameError: They are not its fields.
    """
    aliases = fields.items("aliases", most=_MAX_ALIASES)
    if not all(isinstance(alias, str) for alias in aliases):
        raise FrameError("aliases are names")
    head = ContextHead(
        kind=fields.member("kind", ContextKind),
        total_bytes=fields.integer("total_bytes"),
        sha256_hex=fields.text("sha256_hex", max_chars=64),
        aliases=tuple(map(str, aliases)),
    )
    return fields.text("name", max_chars=_MAX_NAME_CHARS), head
