"""How many tokens a text takes is estimated too high rather than too low, and learnt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat import Message, ModelReply
from orchestrator.engine.account import Account
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Amounts, Ledger
from orchestrator.limits import RunLimits


def chat(*texts: str) -> Sequence[Message]:
    """Makes a chat."""
    return [Message("user", text) for text in texts]


def counted(prompt_tokens: int, *, is_estimated: bool = False) -> ModelReply:
    """Makes a reply with a provider's count."""
    return ModelReply(text="", prompt_tokens=prompt_tokens, is_estimated=is_estimated)


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [([], 16), (["x" * 300], 124), (["x" * 300, "é" * 150], 232), (["\ud800" * 3], 25)],
)
def test_three_bytes_are_a_token_and_a_chat_takes_a_few(texts: list[str], tokens: int) -> None:
    """Source code takes that much; what is around messages counts too, and any text can be."""
    assert TokenEstimator().prompt_tokens("m", chat(*texts)) == tokens


def test_text_that_took_more_than_thought_is_not_underestimated_again() -> None:
    """Chinese or base64 take more tokens a byte than prose: seen once, reckoned with."""
    estimator = TokenEstimator()
    estimator.learn("m", chat("x" * 3_000), counted(2_000))

    assert estimator.text_tokens("m", "x" * 3_000) == 2_200  # and a tenth for the next one
    assert estimator.text_tokens("other", "x" * 3_000) == 1_000


def test_text_that_took_less_changes_nothing() -> None:
    """The next one may be of the sort that takes more."""
    estimator = TokenEstimator()
    for prompt_tokens in (2_000, 500):
        estimator.learn("m", chat("x" * 3_000), counted(prompt_tokens))

    assert estimator.text_tokens("m", "x" * 3_000) == 2_200


@pytest.mark.parametrize(
    ("size", "reply"),
    [
        (1_999, counted(5_000)),  # mostly the chat's own format
        (3_000, counted(2_000, is_estimated=True)),  # what was estimated teaches nothing
        (3_000, counted(0)),
    ],
)
def test_what_says_nothing_teaches_nothing(size: int, reply: ModelReply) -> None:
    """One odd figure does not make every later request look dear."""
    estimator = TokenEstimator()
    estimator.learn("m", chat("x" * size), reply)

    assert estimator.text_tokens("m", "x" * 3_000) == 1_000


def test_more_tokens_than_bytes_are_not_believed() -> None:
    """A provider's nonsense does not stop a run by making each request unaffordable."""
    estimator = TokenEstimator()
    estimator.learn("m", chat("x" * 3_000), counted(10**9))

    assert estimator.text_tokens("m", "x" * 3_000) == 3_000


@given(
    size=st.integers(2_000, 50_000),
    tokens=st.integers(0, 50_000),
    others=st.lists(st.tuples(st.integers(1, 50_000), st.integers(0, 50_000)), max_size=5),
)
def test_no_chat_that_was_counted_is_estimated_below_its_count(
    size: int, tokens: int, others: list[tuple[int, int]]
) -> None:
    """Whatever else was learnt, what has been seen is set aside for in full."""
    estimator = TokenEstimator()
    seen = min(tokens, size)
    for other_size, other_tokens in [(size, seen), *others]:
        estimator.learn("m", chat("x" * other_size), counted(other_tokens))

    assert estimator.prompt_tokens("m", chat("x" * size)) >= seen


def test_spending_of_a_child_goes_up_to_the_last_ancestor() -> None:
    """Totals include children at every depth, and each model's usage is told apart."""
    ledger = Ledger(limits=RunLimits())
    top = Account(ledger)
    middle = Account(ledger, parent=top)
    bottom = Account(ledger, parent=middle)
    [reservation] = ledger.reserve([Amounts()])
    bottom.charge_reply(reservation, Amounts(requests=1), model="m", reply=counted(10))
    middle.charge_unanswered(reservation, Amounts(nanodollars=5), model="n")

    assert top.usage == middle.usage != bottom.usage
    assert set(bottom.usage) == {"m"}
    assert top.usage["n"].unanswered_usd == 5e-9
    assert top.spent == ledger.spent == Amounts(requests=1, nanodollars=5)


def test_usage_that_was_read_does_not_change() -> None:
    """A result keeps what it was made with, whatever is charged after."""
    ledger = Ledger(limits=RunLimits())
    account = Account(ledger)
    [reservation] = ledger.reserve([Amounts()])
    before = account.usage
    account.charge_reply(reservation, Amounts(), model="m", reply=counted(10))
    before["forged"] = account.usage["m"]

    assert set(before) == {"forged"}
    assert set(account.usage) == {"m"}
