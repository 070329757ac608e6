"""How one run comes by a sandbox, and what it binds in it.

Without it a run would have to know whether it is one of several in the same sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from orchestrator.domain import CellId, EncodedContext
from orchestrator.ports import QueryHandler, Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One value that is bound before the first cell."""

    name: str
    context: EncodedContext
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxUse:
    """A run's use of a sandbox.

    Attributes:
        open: Yields the sandbox, whose queries the handler answers until the context is left.
        bindings: What the run has to bind in it; looked at once the sandbox is open.
        last_cell_id: Of the last cell it has run; likewise.
        note: What the root model is told of earlier runs in it; likewise.
        context_name: The numbered name of the run's context, where there are several; else empty.
        on_ready: Called when everything is bound.
    """

    open: Callable[[QueryHandler], AbstractAsyncContextManager[Sandbox]]
    bindings: Callable[[], tuple[Binding, ...]]
    last_cell_id: Callable[[], CellId] = lambda: CellId(0)
    note: Callable[[], str] = str
    context_name: str = ""
    on_ready: Callable[[], None] = lambda: None


def once(
    open_sandbox: Callable[[QueryHandler], AbstractAsyncContextManager[Sandbox]],
    context: EncodedContext,
) -> SandboxUse:
    """Returns the use of a sandbox of the run's own."""
    bindings = (Binding(name="context", context=context, aliases=("context_0",)),)
    return SandboxUse(open=open_sandbox, bindings=lambda: bindings)
