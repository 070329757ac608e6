"""What of Python a cell may use under `guarded`: one pass over the tree, nothing rewritten.

Without it a cell that cannot work here (it wants a shell, a package, a keyboard) would fail
somewhere in the middle, with half of its effects done and an error that teaches nothing. It is a
guard rail and no wall: it judges what is written in the cell, and `docs/adr/0004` says why that is
enough.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Container, Iterator
from typing import Any, ClassVar

from RestrictedPython.transformer import RestrictingNodeTransformer

from sandbox_image.repl.language_builtins import (
    REFUSED_BUILTINS,
    REFUSED_NAMES,
    refusal_of_attribute,
    refusal_of_attribute_name,
    refusal_of_builtin,
    refusal_of_member,
    refusal_of_module,
)
from sandbox_image.repl.language_imports import SUSPECT_MEMBERS
from sandbox_image.repl.language_refusals import Advice, FoundRefusal, Refusal, Rule

_RELATIVE_IMPORT = Refusal(
    Rule.RELATIVE_IMPORT,
    "a relative import",
    Advice("a cell is in no package", "import by full name"),
)
# CVE-2025-22153: CPython before 3.13.2 trusts what a group's own split() returns to `except*`, and
# mistakes any object for a pair. derive() is what subclasses override.
_GROUP_SPLIT = Refusal(
    Rule.GROUP_SPLIT,
    "split() of an exception group",
    Advice("`except*` calls it", "override derive() instead"),
)

# What takes an attribute's name as text: a literal one is judged as if it were written out.
_ATTRIBUTE_CALLS = frozenset(
    {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller"}
    | {"__getattribute__", "__getattr__", "__setattr__", "__delattr__", "get_field"}
)
# str.format and string.Formatter walk attributes (CVE-2023-41039, CVE-2026-76825). Only constant
# format strings are judged: a computed one would need a guard on every call of `.format`.
_FORMAT_CALLS = frozenset({"format", "format_map", "vformat"})
_FORMAT_FIELD = re.compile(r"\{([^{}]*)")
_FIELD_ATTRIBUTE = re.compile(r"\.(\w+)")

_IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})

# Leaves that hold nothing to judge; they are half of the nodes of a tree.
_LEAVES = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)


def _kinds(names: str) -> list[type[ast.AST]]:
    # By name, because some of them exist in the container's Python only.
    return [getattr(ast, name) for name in names.split() if hasattr(ast, name)]


# Allowed as they are: RestrictedPython would rewrite the first and refuse the others.
_PLAIN = _kinds(
    "Subscript ListComp SetComp DictComp GeneratorExp comprehension Assign AugAssign For With "
    "Lambda Module NamedExpr "
    "AnnAssign AsyncFor AsyncWith Await Global Nonlocal Match match_case MatchValue MatchSingleton "
    "MatchSequence MatchMapping MatchClass MatchOr"
)
_BINDING = _kinds(
    "FunctionDef AsyncFunctionDef ExceptHandler MatchAs MatchStar TypeAlias TypeVar ParamSpec "
    "TypeVarTuple"
)


class GuardedPolicy(RestrictingNodeTransformer):
    """Judges one cell. Make one for each cell; it keeps what it has seen.

    It overrides every visitor of RestrictedPython that would rewrite the tree or that refuses
    ordinary Python, and inherits the rest with its default: a node that nobody has looked at, of a
    newer Python, is refused.
    """

    def __init__(self, known_names: Container[str]) -> None:
        """Starts with the names that earlier cells have bound."""
        super().__init__()
        self._known_names = known_names
        self._refusals: list[FoundRefusal] = []
        self._pending: list[ast.AST] = []
        self._bound: set[str] = set()
        self._modules: dict[str, str] = {}
        self._called_builtins: list[ast.Name] = []
        self._suspect_members: list[ast.Attribute] = []
        self._imports_with_fallback: set[ast.AST] = set()

    def refusals_in(self, tree: ast.Module) -> list[FoundRefusal]:
        """Returns what `tree` may not use, in the order of the text; the tree stays as it is."""
        # A list of what is left to visit, not recursion: a chain of 1,500 `elif` or `+` is within
        # what the compiler takes and would exceed Python's own recursion limit here.
        self._pending.append(tree)
        while self._pending:
            self.visit(self._pending.pop())
        self._judge_called_builtins()
        self._judge_suspect_members()
        return sorted(self._refusals)

    def visit(self, node: ast.AST) -> None:
        """Applies this policy's rule for the node, else what RestrictedPython says of it."""
        rule = self._RULES.get(type(node))
        if rule is None:
            super().visit(node)
        else:
            rule(self, node)

    def node_contents_visit(self, node: Any) -> Any:  # noqa: ANN401 - RestrictedPython's signature
        """Queues the node's children; they are visited after it, in any order."""
        pending = self._pending
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                pending.extend(
                    item
                    for item in value
                    if isinstance(item, ast.AST) and not isinstance(item, _LEAVES)
                )
            elif isinstance(value, ast.AST) and not isinstance(value, _LEAVES):
                pending.append(value)
        return node

    def not_allowed(self, node: ast.AST) -> None:
        """Refuses a kind of statement or expression as a whole."""
        self.error(node, type(node).__name__)

    def error(self, node: ast.AST, info: str) -> None:
        """Takes what an inherited visitor has found."""
        advice = Advice("this syntax is newer than the policy", "write it plainly")
        self._refuse(node, Refusal(Rule.SYNTAX, info, advice))

    def _refuse(self, node: ast.AST, refusal: Refusal | None) -> bool:
        if refusal is not None:
            line = getattr(node, "lineno", 1)
            column = getattr(node, "col_offset", 0)
            self._refusals.append(FoundRefusal(line=line, column=column, refusal=refusal))
        return refusal is not None

    def _leaf(self, node: ast.AST) -> None:
        """Leaves a node that holds nothing to judge."""

    def _name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._bound.add(node.id)
        if advice := REFUSED_NAMES.get(node.id):
            self._refuse(node, Refusal(Rule.NAME, f"`{node.id}`", advice))

    def _binds_its_name(self, node: Any) -> None:  # noqa: ANN401 - many nodes with a name
        if isinstance(name := node.name, str):
            self._bound.add(name)  # a type alias has a node there, which is visited as a child
        self.node_contents_visit(node)

    def _arg(self, node: ast.arg) -> None:
        self._bound.add(node.arg)
        self.node_contents_visit(node)

    def _class(self, node: ast.ClassDef) -> None:
        if any(_last_name(base).endswith("ExceptionGroup") for base in node.bases):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "split":
                    self._refuse(item, _GROUP_SPLIT)
        self._binds_its_name(node)

    def _attribute(self, node: ast.Attribute) -> None:
        is_refused = self._refuse(node, refusal_of_attribute(node.attr))
        if not is_refused and node.attr in SUSPECT_MEMBERS:
            self._suspect_members.append(node)
        self._pending.append(node.value)

    def _call(self, node: ast.Call) -> None:
        self.node_contents_visit(node)
        callee = node.func
        name = _last_name(callee)
        if isinstance(callee, ast.Name):
            if name in REFUSED_BUILTINS:
                self._called_builtins.append(callee)
            elif name == "__import__":
                for text in _constant_texts(node.args[:1]):
                    self._refuse(node, refusal_of_module(text))
        if name in _ATTRIBUTE_CALLS:
            for text in _constant_texts(node.args):
                self._judge_attribute_names(node, text.split("."))
        elif name in _FORMAT_CALLS and isinstance(callee, ast.Attribute):
            for text in _constant_texts([callee.value, *node.args]):
                for field in _FORMAT_FIELD.findall(text):
                    self._judge_attribute_names(node, _FIELD_ATTRIBUTE.findall(field))

    def _judge_attribute_names(self, node: ast.AST, names: list[str]) -> None:
        for name in names:
            self._refuse(node, refusal_of_attribute_name(name))

    def _try(self, node: ast.Try) -> None:
        if any(_catches_import_error(handler) for handler in node.handlers):
            # `try: import numpy` with a fallback is written for a machine like this one: refusing
            # the cell would take the fallback away. The import fails when it runs.
            self._imports_with_fallback.update(node.body)
        self.node_contents_visit(node)

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self._modules[alias.asname or top] = alias.name if alias.asname else top
            if node not in self._imports_with_fallback:
                self._refuse(node, refusal_of_module(alias.name))

    def _import_from(self, node: ast.ImportFrom) -> None:
        if node.level:
            self._refuse(node, _RELATIVE_IMPORT)
            return
        module = node.module or ""
        for alias in node.names:
            self._modules[alias.asname or alias.name] = f"{module}.{alias.name}"
        if node in self._imports_with_fallback or self._refuse(node, refusal_of_module(module)):
            return
        for alias in node.names:
            self._refuse(node, refusal_of_member(module, alias.name))
            self._judge_attribute_names(node, [alias.name])

    def _judge_called_builtins(self) -> None:
        for name in self._called_builtins:
            taken = name.id in self._bound or name.id in self._modules
            if not taken and name.id not in self._known_names:
                self._refuse(name, refusal_of_builtin(name.id))

    def _judge_suspect_members(self) -> None:
        for node in self._suspect_members:
            root, *rest = _dotted_path(node.value)
            if root in self._modules:
                root = self._modules[root]
            elif root in self._bound:
                continue
            module = ".".join([root, *rest])
            self._refuse(node, refusal_of_member(module, node.attr))

    _RULES: ClassVar[dict[type[ast.AST], Callable[[GuardedPolicy, Any], object]]] = (
        dict.fromkeys(_PLAIN, node_contents_visit)
        | dict.fromkeys(_BINDING, _binds_its_name)
        | {
            ast.Constant: _leaf,
            ast.Name: _name,
            ast.arg: _arg,
            ast.Attribute: _attribute,
            ast.Call: _call,
            ast.ClassDef: _class,
            ast.Try: _try,
            ast.TryStar: _try,
            ast.Import: _import,
            ast.ImportFrom: _import_from,
        }
    )


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _dotted_path(node: ast.expr) -> list[str]:
    """Returns `["a", "b"]` for `a.b`, and `[""]` for what is not a plain path of names."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    return [node.id, *reversed(path)] if isinstance(node, ast.Name) else [""]


def _constant_texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(_last_name(node) in _IMPORT_ERRORS for node in caught)
