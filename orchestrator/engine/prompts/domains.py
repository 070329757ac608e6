"""What is said beside the question where it is known what kind of material the context is.

Without it a root model would cut source code by length and tables by paragraph, and find out turns
later that it should not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from orchestrator.domain import ContextKind
from orchestrator.errors import SettingsError

_DOCUMENTS = """\
The context is a collection of documents. Find out how they differ in length and kind before you \
read any. Most questions concern few of them: pick candidates by name and by search in Python, and \
have the sub-model read those whole, several to a prompt. Keep the name of the document with each \
thing you learn from it, so that the answer can say where it is from."""

_CODE = """\
The context is source code. Its files belong together: find the ones that matter by path, by the \
names they define and by who imports whom, with `re` or `ast`. Never cut a file in the middle of a \
definition. Give the sub-model whole files or whole functions, each with its path, and ask about \
what the code does; what can be counted or looked up is Python's."""

_TABLES = """\
The context is tabular. Parse it once, with `csv` or `json`, look at the columns and at some rows, \
and keep the rows in a variable. Counting, filtering, grouping and joining are Python's, exactly. \
The sub-model is for what a cell of the table means: send the distinct values, not the rows."""

_LOGS = """\
The context is a log. Find out how a line is built, then turn lines into records with `re`. \
Reduce messages to patterns, with numbers and names replaced, and count those before you read any. \
Look at what is rare, at what comes first, and at what stands just before it. The sub-model is for \
what a few lines mean together, not for single lines."""

#: Says that nothing is to be said.
NO_DOMAIN: Final = "none"

#: The texts by the name of their kind.
DOMAINS: Final[Mapping[str, str]] = MappingProxyType(
    {"documents": _DOCUMENTS, "code": _CODE, "tables": _TABLES, "logs": _LOGS}
)


def checked_domain(domain: str) -> str:
    """Returns the name of a kind of material, or empty.

    Raises:
        SettingsError: There is no such kind.
    """
    if domain and domain != NO_DOMAIN and domain not in DOMAINS:
        names = ", ".join((*DOMAINS, NO_DOMAIN))
        raise SettingsError(f"domain: expected one of {names}; got {domain!r}.")
    return domain


def domain_text(domain: str, kind: ContextKind) -> str:
    """Returns what is said of a kind of material; of documents where nothing else is known.

    Args:
        domain: A key of `DOMAINS`, `NO_DOMAIN`, or empty for what the context itself shows.
        kind: Of the context.
    """
    if domain:
        return DOMAINS.get(domain, "")
    return _DOCUMENTS if kind is ContextKind.DOCUMENTS else ""
