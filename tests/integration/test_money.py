"""What a run spends, on the whole product, at providers that fail, break off and overrun.

The provider is a server that the real SDK talks to; it counts what it would bill.
"""

from __future__ import annotations

import itertools
import threading

import pytest
from support.model_server import ROOT_MODEL, SUB_MODEL, Answer, ModelServer, failure
from support.real_host import RealHost, cell

from orchestrator import RLM, AnswerSource, FinishReason, RunLimits
from orchestrator.errors import SettingsError
from orchestrator.events import CellEnded, RequestFailed
from orchestrator.price import Price
from orchestrator.providers import ModelSettings
from orchestrator.settings import Settings

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

PRICE = ModelSettings(price=Price(prompt_usd=1.0, completion_usd=2.0))
ADD_UP = """
answers = llm_query_batched([f"add {n} and {n + 1}" for n in range(60)])
FINAL(sum(map(int, answers)))
"""
USED_BY_ANSWER = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}


def priced(host: RealHost, server: ModelServer, *, limits: RunLimits, max_retries: int) -> Settings:
    """Returns settings with prices for both models."""
    settings = host.settings(server)
    provider = settings.provider.__class__(
        base_url=settings.provider.base_url,
        api_key=settings.provider.api_key,
        max_retries=max_retries,
    )
    return settings.model_copy(
        update={
            "run": limits,
            "provider": provider,
            "models": {ROOT_MODEL: PRICE, SUB_MODEL: PRICE},
        }
    )


class Oracle:
    """Answers sums rightly, and fails in every way on the way there.

    Attributes:
        answered: Requests that it answered whole.
        broken: Streams that it broke off.
    """

    def __init__(self) -> None:
        """Begins with what works."""
        self.answered = self.broken = 0
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, prompt: str) -> Answer:
        """Answers one request: every third is put off, every fifth fails, every seventh breaks."""
        with self._lock:
            number = next(self._numbers)
            if number % 7 == 0:
                self.broken += 1
                return Answer(text="12", pieces=["1", "2"], breaks_after=1)
            if number % 5 == 0:
                return failure(503)
            if number % 3 == 0:
                return failure(429, headers={"Retry-After": "0.05"})
            self.answered += 1
        words = prompt.split()
        text = str(int(words[1]) + int(words[3]))
        return Answer(text=text, usage=USED_BY_ANSWER, delay_s=0.01)


def test_every_answer_is_paid_for_once(host: RealHost) -> None:
    """Of 60 prompts each has its answer, and the bill is that of the provider, to the token."""
    oracle = Oracle()
    failed: list[RequestFailed] = []
    with ModelServer(root=[cell(ADD_UP)], sub=oracle) as server:
        # More than half of the requests fail, in an order that the threads make: after nine tries
        # in a row one of sixty prompts in five runs has no answer, after thirty-one none.
        settings = priced(host, server, limits=RunLimits(usd=1.0, direct_chars=0), max_retries=30)
        rlm = RLM(
            settings=settings,
            on_event=lambda event: (
                failed.append(event) if isinstance(event, RequestFailed) else None
            ),
        )
        result = rlm.completion("words", "q")

    usage = result.usage[SUB_MODEL]
    assert result.answer == str(sum(2 * n + 1 for n in range(60)))
    assert usage.request_count == oracle.answered == 60
    assert (usage.prompt_tokens, usage.completion_tokens) == (60 * 20, 60 * 3)
    assert usage.cost_usd == pytest.approx(60 * (20 * 1.0 + 3 * 2.0) / 1e6)
    # What was broken off may be billed; what was refused with a status is not.
    assert usage.unanswered_count == oracle.broken > 0
    assert usage.unanswered_usd > 0
    assert sum(event.charged_usd > 0 for event in failed) == oracle.broken
    assert any("429" in event.why for event in failed)
    assert result.cost_usd is not None
    assert result.cost_usd < 1.0


def test_reply_that_overruns_its_bound_is_cut_off(host: RealHost) -> None:
    """A provider that ignores the bound is hung up on when the money is gone, not after."""
    endless = Answer(
        text="",
        pieces=["word " * 20] * 2_000,
        piece_delay_s=0.005,
        usage=None,
    )
    limits = RunLimits(usd=0.01, direct_chars=0)
    with ModelServer(root=[cell("answer['content'] = 'so far'"), endless]) as server:
        settings = priced(host, server, limits=limits, max_retries=0)
        result = RLM(settings=settings).completion("words", "q")
        was_left = server.wait_until(lambda: server.disconnect_count >= 1)
        bound = server.root_requests[0].body["max_tokens"]

    assert was_left
    assert bound < 5_000
    assert result.answer == "so far"
    assert result.answer_source is AnswerSource.DRAFT
    assert result.cost_usd is not None
    assert 0.001 < result.cost_usd < 0.02


def test_batch_that_cannot_be_afforded_is_refused_whole(host: RealHost) -> None:
    """Not one of its prompts leaves; the cell reads what there is left, and goes on."""
    source = """
try:
    llm_query_batched([str(n) + "x" * 40_000 for n in range(50)])
except QueryError as error:
    print(error)
FINAL(llm_query("a short one"))
"""
    limits = RunLimits(usd=0.1, direct_chars=0)
    with ModelServer(root=[cell(source)], sub=str.upper) as server:
        settings = priced(host, server, limits=limits, max_retries=0)
        result = RLM(settings=settings).completion("words", "q")
        asked_count = len(server.sub_requests)
        [ended] = [event for event in result.trajectory if isinstance(event, CellEnded)]

    assert asked_count == 1
    assert "50 prompts could cost up to $" in str(ended.result.stdout)
    assert (result.answer, result.finish_reason) == ("A SHORT ONE", FinishReason.ANSWERED)


def test_money_without_a_price_is_refused_before_anything_is_sent(host: RealHost) -> None:
    """A limit that nobody can keep is no limit, and the operator is told what to add."""
    limits = RunLimits(usd=0.5, direct_chars=0)
    with ModelServer(root=[cell("FINAL('x')")]) as server:
        settings = host.settings(server).model_copy(update={"run": limits})
        with pytest.raises(SettingsError, match="price") as refused:
            RLM(settings=settings).completion("words", "q")
        asked_count = len(server.requests)

    assert asked_count == 0
    assert ROOT_MODEL in str(refused.value)
