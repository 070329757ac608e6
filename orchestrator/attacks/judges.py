"""Rules on attacks by what was seen of them.

Without it each attack would decide for itself what counts as stopped, and an answer that nobody
expected (EINVAL: the kernel began to do it) would pass for a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.attacks.attack import DONE, NOT_HERE, PROBE, Observation, Ruling, Verdict
from orchestrator.domain import Outcome

#: Errors that are a probe's own, and no wall's.
_MISTAKES = frozenset(
    {"AttributeError", "ImportError", "IndexError", "KeyError", "NameError", "TypeError"}
)
#: The way that an attack took which cost its session, and nobody else anything.
SESSION = "the session"
_VOID = "the probe itself failed: "
#: What an interpreter's allocator may do meanwhile.
_FLAT_BYTES = 16 * 2**20


def refused(known: frozenset[str], seen: Observation) -> Ruling:
    """Stopped where each way came to an answer that is some wall's, and the host saw nothing."""
    if seen.lost:
        return Ruling(verdict=Verdict.UNDECIDED, why=f"the sandbox was lost: {seen.lost}")
    if seen.told is None:
        return Ruling(verdict=Verdict.UNDECIDED, why=_describe_silence(seen))
    return _rule_on_answers(known, seen.told, seen)


def refused_later(known: frozenset[str], seen: Observation) -> Ruling:
    """Likewise of what the second probe told; the first one only prepares."""
    if seen.later is None:
        return Ruling(verdict=Verdict.UNDECIDED, why=f"nothing was seen later: {seen.lost}")
    return _rule_on_answers(known, seen.later, seen)


def ends_at_the_limit(known: frozenset[str], seen: Observation) -> Ruling:
    """Like `refused`; a sandbox whose memory ran out may end as a whole, and says so."""
    if seen.lost and "memory" in seen.lost:
        answers = {"the sandbox": "ended at the limit"}
        return Ruling(verdict=Verdict.STOPPED, why=seen.lost, answers=answers)
    if seen.told is None and seen.outcome is Outcome.KILLED and "MemoryError" in seen.error:
        answers = {"the cell": "ended at the limit"}
        return Ruling(verdict=Verdict.STOPPED, why=seen.error, answers=answers)
    return refused(known, seen)


def survived(known: frozenset[str], seen: Observation) -> Ruling:
    """Stopped where the session went on after whatever the cell did, at no cost to the host."""
    del known
    answers = {"the cell": _describe_end(seen)}
    if _is_void(seen):
        return Ruling(verdict=Verdict.UNDECIDED, why=_VOID + seen.error, answers=answers)
    if seen.host_growth_bytes > _FLAT_BYTES:
        return _rule_on_growth(seen, answers)
    if seen.lost:
        why = f"the session did not go on: {seen.lost}"
        return Ruling(verdict=Verdict.NOT_STOPPED, why=why, answers={SESSION: "it was lost"})
    if not seen.goes_on:
        why = "the session did not go on: the next cell failed"
        return Ruling(verdict=Verdict.NOT_STOPPED, why=why, answers=answers)
    why = f"{answers['the cell']}; the session went on, with its variables"
    return Ruling(verdict=Verdict.STOPPED, why=why, answers=answers)


def contained(known: frozenset[str], seen: Observation) -> Ruling:
    """Stopped where nobody but the attacker's own sandbox lost anything.

    For attacks that may end their own session; that it ended in words and in time was seen by the
    fact that there is an observation.
    """
    answers = {"the cell": _describe_end(seen)}
    if _is_void(seen):
        return Ruling(verdict=Verdict.UNDECIDED, why=_VOID + seen.error, answers=answers)
    if seen.host_growth_bytes > _FLAT_BYTES:
        return _rule_on_growth(seen, answers)
    if seen.reached:
        return _rule_on_answers(known, answers, seen)
    if seen.goes_on:
        why = f"{answers['the cell']}; the session went on"
    elif seen.lost:
        why = f"it ended its own sandbox alone: {seen.lost}"
    else:
        return Ruling(verdict=Verdict.NOT_STOPPED, why="the session hangs", answers=answers)
    return Ruling(verdict=Verdict.STOPPED, why=why, answers=answers)


def _rule_on_answers(
    known: frozenset[str], answers: Mapping[str, str], seen: Observation
) -> Ruling:
    if seen.reached:
        why = f"the host saw it: {', '.join(seen.reached)}"
        return Ruling(verdict=Verdict.NOT_STOPPED, why=why, answers=answers)
    failure = answers.get(PROBE)
    if failure is not None and failure not in known:
        why = f"the probe itself failed: {failure}"
        return Ruling(verdict=Verdict.UNDECIDED, why=why, answers=answers)
    open_ways = {way: answer for way, answer in answers.items() if _is_open(answer, known)}
    if open_ways:
        return Ruling(verdict=Verdict.NOT_STOPPED, why=_list(open_ways), answers=answers)
    tried = {way: text for way, text in answers.items() if not text.startswith(NOT_HERE)}
    if not tried:
        reasons = sorted({text.removeprefix(NOT_HERE) for text in answers.values()})
        why = "; ".join(reasons) or "there is no way to try it here"
        return Ruling(verdict=Verdict.NOT_APPLICABLE, why=why, answers=answers)
    return Ruling(verdict=Verdict.STOPPED, why=_list(tried), answers=tried)


def _is_open(answer: str, known: frozenset[str]) -> bool:
    return not answer.startswith(NOT_HERE) and answer not in known


def _rule_on_growth(seen: Observation, answers: Mapping[str, str]) -> Ruling:
    why = f"the host's memory grew by {seen.host_growth_bytes / 2**20:.0f} MiB"
    return Ruling(verdict=Verdict.NOT_STOPPED, why=why, answers=answers)


def _is_void(seen: Observation) -> bool:
    """Whether the cell ended for a mistake in it: then nothing was attacked."""
    if seen.outcome is Outcome.REJECTED:
        return True
    return seen.outcome is Outcome.RAISED and seen.error.partition(":")[0] in _MISTAKES


def _describe_silence(seen: Observation) -> str:
    if seen.outcome is None:
        return f"the probe told nothing: {seen.error or 'it ended without a word'}"
    return f"the probe told nothing: its cell {_describe_end(seen)}"


def _describe_end(seen: Observation) -> str:
    if seen.lost:
        return "lost its sandbox"
    words = {
        None: "told nothing",
        Outcome.SUCCEEDED: "ended by itself",
        Outcome.RAISED: "raised",
        Outcome.REJECTED: "was rejected",
        Outcome.TIMED_OUT: f"was stopped after {seen.took_s:.1f} s",
        Outcome.KILLED: "was killed",
        Outcome.STOPPED: "was stopped",
    }
    ended = words[seen.outcome]
    return f"{ended} ({seen.error})" if seen.error else ended


def _list(answers: Mapping[str, str]) -> str:
    """Returns the ways by what they came to, those of one answer together."""
    by_answer: dict[str, list[str]] = {}
    for way, answer in answers.items():
        by_answer.setdefault("carried out" if answer == DONE else answer, []).append(way)
    return "; ".join(f"{', '.join(ways)}: {answer}" for answer, ways in by_answer.items())
