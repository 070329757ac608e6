"""Fights the battery on real sandboxes.

Without it an attack that takes its sandbox along would take the report along, too. Whatever goes
wrong here is a result: a sandbox that is lost, a probe that says nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeAlias

import psutil

from orchestrator.attacks.attack import Attack, Observation, Position
from orchestrator.attacks.hostile_worker import HostileWorker, OpenHostileWorker
from orchestrator.attacks.prelude import PROOFS, cell_of, probing_cell, read_told
from orchestrator.attacks.scene import Scene
from orchestrator.attacks.settling import AttackResult, Grounds, settle
from orchestrator.domain import CellResult, Json, Outcome, QueryAnswer, QueryRequest
from orchestrator.errors import ProtocolViolationError, SandboxError, SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

_logger = logging.getLogger(__name__)

#: Told of each result as it is there.
ResultSink: TypeAlias = Callable[[AttackResult], None]

_PATIENCE_S = 20.0  # for what the battery asks for itself: signs of life, proofs
#: Beyond a probe's own time: the grace of its cell twice over, the worker's answer. What takes
#: longer hangs, which no attack may bring about.
_GUARD_S = 45.0
_ERROR_CHARS = 300
_DESTRUCTIVE_AT_A_TIME = 2  # one sandbox starts while the other is under attack
_SIGN = "of life"


class EchoQueries:
    """Answers each query with itself: no model is asked by an attack."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers at once."""
        return [f"echo: {prompt}" for prompt in request.prompts]


class Runner:
    """Runs attacks, each from each of its positions."""

    def __init__(
        self,
        *,
        provider: SandboxProvider,
        open_hostile_worker: OpenHostileWorker,
        scene: Scene,
        sink: ResultSink,
    ) -> None:
        """Takes what attacks are run on; all of it stays the caller's.

        Args:
            provider: Sandboxes as the product makes them, with the policy `open`: a guard rail of
                the language is not what attacks are to be stopped by.
            open_hostile_worker: Opens an attacker in the worker's place.
            scene: What of the host may be reached.
            sink: Told of each result as it is there. Must not block and must not raise.
        """
        self._provider = provider
        self._open_hostile_worker = open_hostile_worker
        self._scene = scene
        self._scene_json: dict[str, Json] = scene.to_json()
        self._sink = sink
        #: What is known of the sandboxes, by position: of the first one opened in each.
        self.grounds: dict[Position, Grounds] = {}

    async def run(self, attacks: Sequence[Attack]) -> tuple[AttackResult, ...]:
        """Runs attacks and returns what came of them, in their order, cells first.

        Raises:
            SandboxStartError: No sandbox could be had at all.
        """
        shared = [one for one in attacks if not one.is_destructive]
        results = [
            *await self.run_in_one_cell([one for one in shared if Position.CELL in one.positions]),
            *await self._run_in_one_worker(
                [one for one in shared if Position.WORKER in one.positions]
            ),
            *await self._run_apart([one for one in attacks if one.is_destructive]),
        ]
        order = {attack.attack_id: number for number, attack in enumerate(attacks)}
        positions = list(Position)
        return tuple(
            sorted(
                results,
                key=lambda one: (order[one.attack.attack_id], positions.index(one.position)),
            )
        )

    async def run_in_one_cell(self, attacks: Sequence[Attack]) -> list[AttackResult]:
        """Runs attacks in one sandbox, in another one where it is lost.

        Raises:
            SandboxStartError: No sandbox could be had for the first of them.
        """
        results: list[AttackResult] = []
        left = list(attacks)
        while left:
            try:
                await self._run_until_lost(left, results)
            except SandboxError as error:
                if not results:
                    raise
                results += self._give_up(left, Position.CELL, error)
        return results

    async def _run_until_lost(self, left: list[Attack], results: list[AttackResult]) -> None:
        """Moves attacks from `left` to `results` until the sandbox is lost, or none is left."""
        async with self._open_cells() as (sandbox, grounds), AsyncExitStack() as neighbours:
            neighbour: Sandbox | None = None
            while left:
                if left[0].is_later_elsewhere and neighbour is None:
                    neighbour = await neighbours.enter_async_context(
                        self._provider.open(EchoQueries())
                    )
                attack = left.pop(0)
                seen = await self._see_cell(attack, sandbox, neighbour)
                results.append(self._tell(attack, Position.CELL, seen, grounds))
                if seen.lost:
                    return

    async def _run_in_one_worker(self, attacks: Sequence[Attack]) -> list[AttackResult]:
        """Likewise in the worker's place."""
        results: list[AttackResult] = []
        left = list(attacks)
        while left:
            try:
                await self._run_in_worker_until_lost(left, results)
            except SandboxError as error:
                if not results:
                    raise
                results += self._give_up(left, Position.WORKER, error)
        return results

    async def _run_in_worker_until_lost(
        self, left: list[Attack], results: list[AttackResult]
    ) -> None:
        async with self._open_hostile_worker() as worker:
            grounds = await self._learn_worker(worker)
            while left:
                attack = left.pop(0)
                seen = await self._see_worker(attack, worker)
                results.append(self._tell(attack, Position.WORKER, seen, grounds))
                if seen.lost:
                    return

    async def _run_apart(self, attacks: Sequence[Attack]) -> list[AttackResult]:
        """Runs each attack in a sandbox of its own."""
        turns = asyncio.Semaphore(_DESTRUCTIVE_AT_A_TIME)

        async def run(attack: Attack) -> AttackResult:
            try:
                async with turns, self._open_cells() as (sandbox, grounds):
                    seen = await self._see_destruction(attack, sandbox)
                    return self._tell(attack, Position.CELL, seen, grounds)
            except SandboxError as error:
                if Position.CELL not in self.grounds:
                    raise
                [result] = self._give_up([attack], Position.CELL, error)
                return result

        alone = [await run(attack) for attack in attacks if attack.is_heavy]
        others = (run(attack) for attack in attacks if not attack.is_heavy)
        return [*alone, *await asyncio.gather(*others)]

    def _give_up(
        self, left: list[Attack], position: Position, error: SandboxError
    ) -> list[AttackResult]:
        """Empties `left` into results that say there was no sandbox to attack."""
        seen = Observation(lost=f"there was none to attack: {error}")
        attacks, left[:] = tuple(left), []
        return [self._tell(attack, position, seen, self.grounds[position]) for attack in attacks]

    def _tell(
        self, attack: Attack, position: Position, seen: Observation, grounds: Grounds
    ) -> AttackResult:
        result = settle(attack, position, seen, grounds)
        self._sink(result)
        return result

    @asynccontextmanager
    async def _open_cells(self) -> AsyncIterator[tuple[Sandbox, Grounds]]:
        async with self._provider.open(EchoQueries()) as sandbox:
            grounds = self.grounds.get(Position.CELL)
            if grounds is None:
                source = probing_cell(PROOFS, {}, is_apart=True)
                result = await sandbox.run_cell(source, timeout_s=_PATIENCE_S)
                grounds = Grounds(
                    container=sandbox.controls.container,
                    controls=sandbox.controls,
                    proofs=read_told(str(result.stdout)) or {},
                )
                self.grounds[Position.CELL] = grounds
            yield sandbox, grounds

    async def _learn_worker(self, worker: HostileWorker) -> Grounds:
        if Position.WORKER not in self.grounds:
            source = probing_cell(PROOFS, {}, is_apart=False)
            printed = await worker.run(source, timeout_s=_PATIENCE_S)
            self.grounds[Position.WORKER] = Grounds(
                container=worker.statement, controls=None, proofs=read_told(printed) or {}
            )
        return self.grounds[Position.WORKER]

    async def _see_cell(
        self, attack: Attack, sandbox: Sandbox, neighbour: Sandbox | None
    ) -> Observation:
        self._scene.collect()
        seen = await _watch(
            attack, sandbox.run_cell(cell_of(attack, self._scene_json), timeout_s=attack.timeout_s)
        )
        other = neighbour if attack.is_later_elsewhere else sandbox
        if attack.later and other is not None and not seen.lost:
            source = probing_cell(attack.later, self._scene_json, is_apart=True)
            after = await _watch(attack, other.run_cell(source, timeout_s=attack.timeout_s))
            seen = replace(seen, later=after.told, lost=after.lost)
        return replace(seen, reached=self._scene.collect())

    async def _see_worker(self, attack: Attack, worker: HostileWorker) -> Observation:
        self._scene.collect()
        started_s = time.monotonic()
        try:
            printed = await worker.run(
                cell_of(attack, self._scene_json), timeout_s=attack.timeout_s
            )
        except SandboxLostError as error:
            return Observation(lost=str(error), took_s=time.monotonic() - started_s)
        told = read_told(printed)
        return Observation(
            told=told,
            error="" if told is not None else printed.strip()[-_ERROR_CHARS:],
            reached=self._scene.collect(),
            took_s=time.monotonic() - started_s,
        )

    async def _see_destruction(self, attack: Attack, sandbox: Sandbox) -> Observation:
        await sandbox.run_cell(f"rlm_sign = {_SIGN!r}", timeout_s=_PATIENCE_S)
        before_bytes = psutil.Process().memory_info().rss
        seen = await self._see_cell(attack, sandbox, None)
        growth_bytes = psutil.Process().memory_info().rss - before_bytes
        goes_on = None if seen.lost else await _goes_on(sandbox)
        return replace(seen, host_growth_bytes=growth_bytes, goes_on=goes_on)


async def _watch(attack: Attack, running: Awaitable[CellResult]) -> Observation:
    """Awaits a cell, and returns what is seen of it, whatever becomes of its sandbox."""
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(attack.timeout_s + _GUARD_S):
            result = await running
    except (SandboxLostError, ProtocolViolationError) as error:
        return Observation(lost=str(error), took_s=time.monotonic() - started_s)
    except TimeoutError:
        lost = f"no end within {attack.timeout_s + _GUARD_S:.0f} s"
        return Observation(lost=lost, took_s=time.monotonic() - started_s)
    error_words = (
        "" if result.error is None else f"{result.error.type_name}: {result.error.message}"
    )
    return Observation(
        told=read_told(str(result.stdout)),
        outcome=result.outcome,
        error=error_words[:_ERROR_CHARS],
        took_s=time.monotonic() - started_s,
    )


async def _goes_on(sandbox: Sandbox) -> bool:
    """Whether cells run, what was bound before is there, and queries are answered."""
    try:
        result = await sandbox.run_cell("print(rlm_sign, llm_query('any?'))", timeout_s=_PATIENCE_S)
    except SandboxError as error:
        _logger.debug("no sign of life: %s", error)
        return False
    told = str(result.stdout).strip()
    return result.outcome is Outcome.SUCCEEDED and told == f"{_SIGN} echo: any?"
