import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.virtual_time import run_in_virtual_time

from orchestrator.models.admission import TrafficLimits
from orchestrator.models.turnstile import LONGEST_SHUT_S, Turnstile, Turnstiles
from orchestrator.providers import ModelSettings, ProviderSettings

Passing = Callable[..., Coroutine[Any, Any, None]]


def passing(turnstile: Turnstile, log: list[tuple[str, float]]) -> Passing:
    """Returns what passes a turnstile, notes when, and stays for a while."""

    async def pass_as(name: str, *, stays_s: float = 1.0, tokens: int = 1) -> None:
        async with turnstile.passed(on_behalf_of=name, tokens=tokens):
            log.append((name, asyncio.get_running_loop().time()))
            await asyncio.sleep(stays_s)

    return pass_as


def test_turns_are_taken_by_run_and_never_more_at_once() -> None:
    """One run's many prompts leave room for another's one, and come in their own order."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        turnstile = Turnstile(TrafficLimits(concurrent_requests=2))
        pass_as = passing(turnstile, log)
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(pass_as("many"))
            await asyncio.sleep(0)
            group.create_task(pass_as("single"))
        assert (turnstile.open_count, turnstile.waiting_count) == (0, 0)
        return log

    log = run_in_virtual_time(play())

    assert ("single", 1.0) in log
    assert [at_s for _, at_s in log] == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]


def test_rate_is_kept_over_a_minute() -> None:
    """Time alone lets the next one through; nobody has to end, and nobody looks on meanwhile."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        pass_as = passing(Turnstile(TrafficLimits(requests_per_minute=2)), log)
        await asyncio.gather(*(pass_as("a", stays_s=0.0) for _ in range(5)))
        return log

    assert [at_s for _, at_s in run_in_virtual_time(play())] == [0.0, 0.0, 60.0, 60.0, 120.0]


def test_endpoint_that_asks_to_wait_is_asked_by_nobody() -> None:
    """Whoever waits, and whoever comes, goes when the endpoint said; others are told once."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        turnstile = Turnstile(TrafficLimits(concurrent_requests=1))
        pass_as = passing(turnstile, log)
        async with asyncio.TaskGroup() as group:
            group.create_task(pass_as("told", stays_s=2.0))
            group.create_task(pass_as("waits"))
            await asyncio.sleep(1.0)
            turnstile.shut_for(30.0)
            group.create_task(pass_as("comes"))
        return log

    assert run_in_virtual_time(play()) == [("told", 0.0), ("waits", 31.0), ("comes", 32.0)]


def test_endpoint_is_not_believed_for_longer_than_a_minute() -> None:
    """Whoever waits behind an hour's refusal hears of it from the endpoint itself."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        turnstile = Turnstile(TrafficLimits())
        turnstile.shut_for(3600.0)
        await passing(turnstile, log)("a")
        return log

    assert run_in_virtual_time(play()) == [("a", LONGEST_SHUT_S)]


def test_cancelling_whoever_waits_leaks_nothing() -> None:
    """Neither a place in the queue nor a request of the minute is lost with it."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        turnstile = Turnstile(TrafficLimits(concurrent_requests=1, requests_per_minute=2))
        pass_as = passing(turnstile, log)
        first, gone, last = (
            asyncio.create_task(pass_as(name)) for name in ("first", "gone", "last")
        )
        await asyncio.sleep(0.5)
        gone.cancel()
        await asyncio.wait({first, gone, last})
        assert gone.cancelled()
        assert (turnstile.open_count, turnstile.waiting_count) == (0, 0)
        return log

    assert run_in_virtual_time(play()) == [("first", 0.0), ("last", 1.0)]


def test_cancelling_whoever_was_just_let_through_leaks_nothing() -> None:
    """A request whose turn came, and which was cancelled before it woke up, was never sent."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        turnstile = Turnstile(TrafficLimits(concurrent_requests=1, requests_per_minute=2))
        pass_as = passing(turnstile, log)
        async with turnstile.passed(on_behalf_of="first", tokens=1):
            gone, last = (asyncio.create_task(pass_as(name)) for name in ("gone", "last"))
            await asyncio.sleep(0.5)
        assert turnstile.open_count == 1  # it is the second's turn, which has not seen it yet
        gone.cancel()
        await asyncio.wait({gone, last})
        assert (turnstile.open_count, turnstile.waiting_count) == (0, 0)
        return log

    assert run_in_virtual_time(play()) == [("last", 0.5)]


def test_place_of_whoever_was_just_cancelled_goes_to_the_next() -> None:
    """A turn that comes to a request which has been cancelled, and has not woken, is passed on."""

    async def play() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        turnstile = Turnstile(TrafficLimits(concurrent_requests=1, requests_per_minute=2))
        pass_as = passing(turnstile, log)
        async with turnstile.passed(on_behalf_of="first", tokens=1):
            gone, last = (asyncio.create_task(pass_as(name)) for name in ("gone", "last"))
            await asyncio.sleep(0.5)
            gone.cancel()
        await asyncio.wait({gone, last})
        return log

    assert run_in_virtual_time(play()) == [("last", 0.5)]


def test_failure_of_whoever_passed_gives_its_place_back() -> None:
    """An error inside ends the request like any other end."""

    async def play() -> None:
        turnstile = Turnstile(TrafficLimits(concurrent_requests=1))
        with pytest.raises(LookupError):
            async with turnstile.passed(on_behalf_of="a", tokens=1):
                raise LookupError
        await passing(turnstile, [])("b")

    run_in_virtual_time(play())


def test_tokens_are_corrected_by_whoever_passed() -> None:
    """A request that took less than expected makes room at once."""

    async def play() -> list[float]:
        turnstile = Turnstile(TrafficLimits(tokens_per_minute=100))
        times: list[float] = []
        for tokens_taken in (10, 10, 90):
            async with turnstile.passed(on_behalf_of="a", tokens=80) as passage:
                passage.settle(tokens=tokens_taken)
                times.append(asyncio.get_running_loop().time())
        return times

    assert run_in_virtual_time(play()) == [0.0, 0.0, 0.0]


def test_models_of_one_provider_pass_one_turnstile() -> None:
    """What an account is allowed is allowed to all its models together, and to no other's."""
    turnstiles = Turnstiles()
    one = ProviderSettings(base_url="http://one/v1")

    def before(model: str, provider: str | None = None, **settings: Any) -> tuple[Turnstile, ...]:  # noqa: ANN401 -- fields
        return turnstiles.before(
            model,
            provider_settings=one if provider is None else ProviderSettings(),
            settings=ModelSettings(provider=provider, **settings),
        )

    assert before("a") == before("b")
    assert before("c", "other") != before("a")
    own, of_provider = before("d", concurrent_requests=1)
    assert (of_provider,) == before("a")
    assert before("d", concurrent_requests=1) == (own, of_provider)
    assert before("e", concurrent_requests=1)[0] is not own
