"""How well a recorded run used what it spent, for runs that did not live to say so as well.

Without it the runs that users fear most, those that had to be killed, would be missing in every
figure.
"""

from __future__ import annotations

from orchestrator.domain import Efficiency, QueryKind
from orchestrator.events import NoticeKind
from orchestrator.trajectory.tree import RecordedRun


def efficiency_of(run: RecordedRun) -> Efficiency:
    """Returns a run's own figures, its child runs left out.

    Those of a run that was cut off are counted from its events; what one prompt would have cost is
    not known then.
    """
    if run.ended is not None:
        return run.ended.efficiency
    asked = [query.started for query in run.queries if query.started.kind is not QueryKind.TOOL]
    sent = [query for query in asked if not query.is_repeat]
    notices = [notice.kind for turn in run.turns for notice in turn.notices]
    return Efficiency(
        context_chars=run.started.context_chars,
        sent_query_count=len(sent),
        sent_chars=sum(len(query.prompt) + query.context_chars for query in sent),
        repeated_query_count=len(asked) - len(sent),
        repeated_turn_count=notices.count(NoticeKind.REPEATED_CELLS),
        notice_count=len(notices),
    )
