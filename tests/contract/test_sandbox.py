"""What every `Sandbox` and `SandboxProvider` does: the ports' contract, held against each."""

import asyncio

import pytest
from support.broker_host import EchoQueries, until
from support.docker_sandboxes import LIMITS
from support.sandbox_implementations import (
    DIE,
    NOTHING,
    WAIT_FOR_EVER,
    Implementation,
    Output,
    kill,
    opened,
    run,
)

from orchestrator.context import encode_context
from orchestrator.domain import Context, EncodedContext, Outcome, OutputStream
from orchestrator.errors import SandboxLostError, SandboxStartError
from orchestrator.limits import SandboxLimits
from orchestrator.ports import Sandbox, SandboxProvider


async def test_sandbox_says_what_it_is(implementation: Implementation) -> None:
    """Logs and labels name a sandbox, its image by digest, and what runs it."""
    async with (
        implementation.open(NOTHING) as provider,
        provider.open(EchoQueries()) as first,
        provider.open(EchoQueries()) as second,
    ):
        assert first.sandbox_id != second.sandbox_id
        assert first.image_id == second.image_id
        assert first.image_id.startswith("sha256:")
        assert first.runtime
        assert first.controls.sandbox_id == first.sandbox_id
        assert first.controls.container.image_id == first.image_id
        assert first.controls.sha256_hex != second.controls.sha256_hex


CONTEXTS: dict[str, Context] = {
    "text": "naïve 🙂 \x00 text\r\n" * 100,
    "empty text": "",
    "documents": ["one", "", "three 🙂"],
    "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
    "list": [1, 2.5, None, True, {"deep": [["x"]]}],
    "dict": {"a": 1, "naïve": ["b"], "": None},
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
async def test_context_is_bound_as_its_value(
    implementation: Implementation, context: Context
) -> None:
    """Each kind of context is in the cell what it was for the caller, under the name given."""
    async with opened(implementation) as sandbox:
        await sandbox.bind_context("context", encode_context(context))
        await sandbox.bind_context("context_1", encode_context("another"))

        result = await run(sandbox, f"print(context == {context!r}, context_1)")

    assert str(result.stdout) == "True another\n"


#: Longer than a piece, and so handed over as files; in a cell they are put together again.
LONG_CONTEXTS: dict[str, tuple[Context, str]] = {
    "text": ("a line of a text\n" * 200_000, r"'a line of a text\n' * 200_000"),
    "other characters": ("Stück 🙂\n" * 200_000, r"'Stück 🙂\n' * 200_000"),
    "documents": (
        [{"name": f"{n}", "text": "naïve " * 1000} for n in range(400)],
        "[{'name': f'{n}', 'text': 'naïve ' * 1000} for n in range(400)]",
    ),
    "dict": ({"a": "x" * 2_000_000, "": [None]}, "{'a': 'x' * 2_000_000, '': [None]}"),
}


@pytest.mark.parametrize(("context", "source"), LONG_CONTEXTS.values(), ids=LONG_CONTEXTS)
async def test_long_context_is_bound_as_its_value(
    implementation: Implementation, context: Context, source: str
) -> None:
    """A context of megabytes is what it was, under each name, and is again after a cell died."""
    async with opened(implementation) as sandbox:
        encoded = encode_context(context)
        await sandbox.bind_context("context", encoded, aliases=["context_0"])
        await sandbox.bind_context("context_1", encoded)
        await run(sandbox, "import os\nos._exit(3)")

        result = await run(
            sandbox, f"print(context == context_0 == context_1 == {source}, type(context).__name__)"
        )

    assert str(result.stdout) == f"True {type(context).__name__}\n"


async def test_context_is_bound_again(implementation: Implementation) -> None:
    """A name that is bound again has the new value, and a cell cannot spoil it for the next."""
    async with opened(implementation) as sandbox:
        for text in ("old", "new"):
            await sandbox.bind_context("context", encode_context(text))
        await run(sandbox, "context = None")

        result = await run(sandbox, "print(context)")

    assert str(result.stdout) == "new\n"


def small_context() -> EncodedContext:
    return encode_context("text")


async def test_death_of_the_container_loses_the_sandbox(implementation: Implementation) -> None:
    """A cell whose container dies ends with an error, and so does every call after it."""
    seen = Output()
    async with opened(implementation, DIE) as sandbox:
        running = asyncio.create_task(run(sandbox, DIE, on_output=seen))
        await until(lambda: bool(seen.pieces[OutputStream.STDOUT]))
        await kill(sandbox)

        with pytest.raises(SandboxLostError):
            await running
        with pytest.raises(SandboxLostError):
            await run(sandbox, NOTHING)
        with pytest.raises(SandboxLostError):
            await sandbox.bind_context("context", small_context())


async def test_left_sandbox_is_destroyed(implementation: Implementation) -> None:
    """Leaving the context is the end of the sandbox, also when an error leaves it."""
    async with implementation.open() as provider:
        with pytest.raises(KeyError):
            async with provider.open(EchoQueries()) as sandbox:
                raise KeyError
        with pytest.raises(SandboxLostError):
            await run(sandbox, NOTHING)


async def test_cancelled_session_destroys_its_sandbox(implementation: Implementation) -> None:
    """A session that is cancelled while its cell runs leaves no sandbox behind."""
    kept: list[Sandbox] = []
    seen = Output()

    async def session(provider: SandboxProvider) -> None:
        async with provider.open(EchoQueries()) as sandbox:
            kept.append(sandbox)
            await run(sandbox, WAIT_FOR_EVER, on_output=seen)

    async with implementation.open(WAIT_FOR_EVER) as provider:
        running = asyncio.create_task(session(provider))
        await until(lambda: bool(seen.pieces[OutputStream.STDOUT]))
        running.cancel()
        await asyncio.wait({running})

        assert running.cancelled()
        with pytest.raises(SandboxLostError):
            await run(kept[0], NOTHING)


async def test_sandboxes_of_one_provider_are_apart(implementation: Implementation) -> None:
    """Two at a time do not know of each other, and the end of one is not the other's."""
    async with (
        implementation.open(NOTHING, NOTHING) as provider,
        provider.open(EchoQueries()) as first,
    ):
        async with provider.open(EchoQueries()) as second:
            both = await asyncio.gather(run(first, NOTHING), run(second, NOTHING))
        after = await run(first, NOTHING)

    assert {result.outcome for result in (*both, after)} == {Outcome.SUCCEEDED}


async def test_sandbox_that_cannot_be_had_is_an_error_on_entering(
    implementation: Implementation,
) -> None:
    """A start that takes longer than it may is a failed start, and nothing of it is left."""
    hasty = SandboxLimits(memory_bytes=LIMITS.memory_bytes, start_s=0.001)
    async with implementation.open(limits=hasty) as provider:
        with pytest.raises(SandboxStartError):
            async with provider.open(EchoQueries()):
                pytest.fail("it started")
