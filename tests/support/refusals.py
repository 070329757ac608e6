"""Every sentence the policy can say, each with a cell that makes it say so.

Without it a test of "every message" would be a test of the messages somebody thought of.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from sandbox_image.repl.language_builtins import (
    REFUSED_ATTRIBUTES,
    REFUSED_BUILTINS,
    REFUSED_NAMES,
)
from sandbox_image.repl.language_imports import REFUSED_MEMBERS, REFUSED_MODULES
from sandbox_image.repl.language_policy import GuardedPolicy
from sandbox_image.repl.language_refusals import Refusal, Rule


class Sample(NamedTuple):
    """A cell, and the rule that refuses it."""

    rule: Rule
    source: str


class NewSyntax(ast.stmt):
    """A statement of a Python that is not out yet."""

    _fields = ()


def samples() -> Iterator[Sample]:
    """Yields a cell for each entry of each table of the policy, and for each rule without one."""
    for module in REFUSED_MODULES:
        yield Sample(Rule.MODULE, f"import {module}")
    for stranger in ("never_heard_of_it", "coolections", "_thread", "_json", "this"):
        yield Sample(Rule.MODULE, f"import {stranger}")
    for module, members in REFUSED_MEMBERS.items():
        for member in members:
            yield Sample(Rule.MEMBER, f"import {module}\n{module}.{member}")
    yield Sample(Rule.MEMBER, "import urllib\nurllib.request")
    for name in REFUSED_ATTRIBUTES:
        yield Sample(Rule.ATTRIBUTE, f"x.{name}")
        yield Sample(Rule.ATTRIBUTE_NAME, f"getattr(x, '{name}')")
    for name in REFUSED_NAMES:
        yield Sample(Rule.NAME, name)
    for name in REFUSED_BUILTINS:
        yield Sample(Rule.BUILTIN, f"{name}()")
    yield Sample(Rule.RELATIVE_IMPORT, "from . import x")
    yield Sample(Rule.GROUP_SPLIT, "class G(ExceptionGroup):\n    def split(self, c): ...")


def refusals_of(source: str) -> list[Refusal]:
    """Returns what the policy says of a cell."""
    found = GuardedPolicy(frozenset()).refusals_in(ast.parse(source))
    return [refused.refusal for refused in found]


def refusal_of_new_syntax() -> Refusal:
    """Returns what the policy says of a statement that nobody has looked at."""
    tree = ast.Module(body=[NewSyntax()], type_ignores=[])
    [found] = GuardedPolicy(frozenset()).refusals_in(tree)
    return found.refusal
