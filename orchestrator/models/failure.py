"""One request that brought no reply.

Without it the reasons for which a request fails would be exceptions of three libraries, and what it
may have cost would be lost on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.models.complaint import Complaint, Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What came instead of a reply, and what it may have cost.

    Attributes:
        complaint: What is wrong.
        cause: The error it was learnt from.
        asked_for_s: How long the endpoint asks to wait; None where it does not say.
        may_be_billed: Whether the model may have done its work all the same.
        received_text: What had come, reasoning included: it is billed as well.
    """

    complaint: Complaint
    cause: Exception | None = None
    asked_for_s: float | None = None
    may_be_billed: bool = False
    received_text: str = ""


def failure(
    trouble: Trouble,
    what_came: str,
    *,
    message: str = "",
    cause: Exception | None = None,
    received_text: str = "",
) -> Failure:
    """Returns a failure that no endpoint complained of."""
    complaint = Complaint(trouble=trouble, what_came=what_came, message=message)
    return Failure(
        complaint=complaint,
        cause=cause,
        may_be_billed=trouble.may_be_billed or bool(received_text),
        received_text=received_text,
    )
