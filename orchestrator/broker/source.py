"""Which sources can be sent at all.

Without it a worker would have to be asked to refuse what cannot even be put into a message.
"""

from __future__ import annotations

from orchestrator.domain import CellError


def source_problem(source: str, *, limit_bytes: int) -> CellError | None:
    """Returns why a source cannot be sent, in the words of the error CPython itself would raise."""
    try:
        source_bytes = len(source.encode())
    except UnicodeEncodeError as error:
        return CellError(
            type_name="UnicodeEncodeError",
            message=f"the cell holds half a surrogate pair at index {error.start}, which is no"
            " character; write it as an escape",
        )
    if source_bytes <= limit_bytes:
        return None
    return CellError(
        type_name="SyntaxError",
        message=f"the cell has {source_bytes:,} bytes of source; a cell takes {limit_bytes:,}."
        " Write several shorter cells; their variables are shared.",
    )
