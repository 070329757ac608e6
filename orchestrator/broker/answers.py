"""Makes the answers of one query fit in one message.

Without it one long answer would cost a sandbox the others that came with it, and its stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain import NotedAnswer, QueryAnswer, QueryFailure, QueryFailureReason

#: Cap of a message in either direction. gRPC's own default, stated because the contract states it.
MAX_MESSAGE_BYTES = 4 * 2**20
#: Kept free in a reply for tags, lengths and the sentences of failures.
_REPLY_OVERHEAD_BYTES = 2**20
#: As the contract has it; 256 of them, the most that come at once, fit the overhead.
_MAX_NOTICE_CHARS = 1_000


def fitted(answers: Sequence[QueryAnswer]) -> list[QueryAnswer]:
    """Returns the answers as text that UTF-8 can hold, and little enough of it for one message.

    Answers that do not fit any more are replaced by a failure that says so, longest first, so that
    one long answer does not cost the others.
    """
    # A model's text may hold what UTF-8 cannot; a lost half character must not lose the answer.
    texts = {
        index: (answer if isinstance(answer, str) else answer.text).encode(errors="replace")
        for index, answer in enumerate(answers)
        if not isinstance(answer, QueryFailure)
    }
    room_bytes = MAX_MESSAGE_BYTES - _REPLY_OVERHEAD_BYTES
    excess_bytes = sum(map(len, texts.values())) - room_bytes
    left_out: set[int] = set()
    for index in sorted(texts, key=lambda index: len(texts[index]), reverse=True):
        if excess_bytes <= 0:
            break
        excess_bytes -= len(texts[index])
        left_out.add(index)
    fitting: list[QueryAnswer] = []
    for index, answer in enumerate(answers):
        if isinstance(answer, QueryFailure):
            message = answer.message.encode(errors="replace").decode()
            fitting.append(QueryFailure(reason=answer.reason, message=message))
        elif index in left_out:
            fitting.append(_answer_too_large(len(texts[index]), room_bytes))
        elif isinstance(answer, NotedAnswer):
            notice = answer.notice[:_MAX_NOTICE_CHARS].encode(errors="replace").decode()
            fitting.append(NotedAnswer(text=texts[index].decode(), notice=notice))
        else:
            fitting.append(texts[index].decode())
    return fitting


def _answer_too_large(answer_bytes: int, room_bytes: int) -> QueryFailure:
    return QueryFailure(
        reason=QueryFailureReason.TOO_LARGE,
        message=f"The answer of {answer_bytes:,} bytes did not fit: the answers of one call have"
        f" {room_bytes:,} bytes together. Ask for shorter answers, or send fewer prompts a call.",
    )
