"""Keeps modules from being imported that others import and nobody here uses.

Without it a worker would import gRPC's asynchronous half, and with it asyncio and TLS, before it
dials, and protobuf's second implementation: twice the time of what it uses, and memory in every
sandbox.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

#: By whom they are imported, and what for: gRPC's extension for its asynchronous half and for
#: certificates, and protobuf for the messages that it would make without its own extension.
NEEDLESS: Final = (
    "asyncio",
    "grpc.aio",
    "inspect",
    "pkgutil",
    "google.protobuf.internal.python_message",
)


def leave_out(*names: str) -> None:
    """Has each `import` of these find a stand-in; whoever wants something of one gets the module.

    To be called before anything has imported them; one that is there already stays.
    """
    for name in names:
        sys.modules.setdefault(name, _StandIn(name))


class _StandIn(ModuleType):
    """Has nothing but a name, until it is asked for more."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        """Imports the module after all; called for what this one has not."""
        if name.startswith("__"):
            raise AttributeError(name)  # the import system asks what it is, and wants nothing of it
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)
