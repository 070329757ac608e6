"""What models are sent, byte for byte.

A snapshot that differs is a change of what every run pays for and answers with: raise
`PROMPT_VERSION`, then write the snapshots again with `REWRITE` below set to True for one run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat import Message
from orchestrator.context import encode_context
from orchestrator.domain import Context, OfferedTool
from orchestrator.engine.parsing import parse_reply
from orchestrator.engine.prompts.chunking import CHUNKING, chunking_advice
from orchestrator.engine.prompts.domains import DOMAINS
from orchestrator.engine.prompts.figures import counted, duration
from orchestrator.engine.prompts.opening import (
    Opening,
    brief_opening_text,
    checked_question,
    opening_text,
)
from orchestrator.engine.prompts.profiles import PROFILES, PROMPT_VERSION, profile_for
from orchestrator.engine.prompts.remarks import (
    EMPTY_ANSWER,
    LAST_TURN,
    last_request,
    repair,
    repeated_queries,
    repetition,
    status,
    verifying,
)
from orchestrator.limits import CellLimits, QueryLimits, RunLimits

REWRITE = False
SNAPSHOTS = Path(__file__).parent / "snapshots"
VERSION_OF_SNAPSHOTS = 2


def assert_snapshot(name: str, text: str) -> None:
    """Compares `text` with the bytes of a snapshot."""
    path = SNAPSHOTS / f"{name}.txt"
    if REWRITE:
        path.write_bytes(text.encode())
    assert path.read_bytes() == text.encode()


def chat(messages: Sequence[Message]) -> str:
    """Returns messages as one text."""
    return "".join(f"[{message.role}]\n{message.content}\n\n" for message in messages)


def opening_of(question: str, context: Context, **fields: Any) -> Opening:  # noqa: ANN401 - of an opening
    """Returns what a first message is made of, with default limits."""
    return Opening(
        question=question,
        context=encode_context(context),
        **{
            "limits": RunLimits(),
            "query_limits": QueryLimits(),
            "cell_limits": CellLimits(),
            **fields,
        },
    )


def opening(question: str, context: Context, **fields: Any) -> str:  # noqa: ANN401 - likewise
    """Returns the first message of a run."""
    return opening_text(opening_of(question, context, **fields))


def test_snapshots_are_of_the_current_version() -> None:
    """The version goes up with the bytes."""
    assert PROMPT_VERSION == VERSION_OF_SNAPSHOTS
    assert not REWRITE


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_what_a_profile_says_first(name: str) -> None:
    """System text, few-shot turns and probe are these bytes."""
    profile = PROFILES[name]
    messages = [Message("system", profile.system)]
    if profile.childless_system != profile.system:
        messages.append(Message("system", profile.childless_system))
    messages += profile.few_shot
    if profile.probe_source:
        messages += [
            Message("user", profile.probe_opening),
            Message("assistant", profile.probe_source),
        ]
    assert_snapshot(f"profile-{name}", chat(messages))


@pytest.mark.parametrize(
    ("name", "question", "context"),
    [
        ("text", "How many lines end in a colon?", "x" * 12_345_678),
        ("texts", "Which one?", ["a" * 10, "b" * 20]),
        ("documents", "Which one?", [{"name": "a.txt", "text": "b" * 20}]),
        ("messages", "What was decided?", [{"role": "user", "content": "hi"}]),
        ("json-dict", "Who?", {"a": "x" * 5, "b": [1, 2]}),
        ("no-question", "", "Translate this: " + "é" * 5_000 + " the end"),
        ("no-question-short", "  ", "Say hello."),
        ("empty", "Anything?", ""),
    ],
)
def test_the_first_message(name: str, question: str, context: Context) -> None:
    """Question, context and limits are put in these bytes."""
    assert_snapshot(f"opening-{name}", opening(question, context))


def test_the_first_message_of_a_run_with_everything() -> None:
    """Tools, further models, a domain and a limit of money are put in these bytes."""
    tool = OfferedTool(
        name="order", signature="(order_id: int) -> dict", description="Looks an order\nup."
    )
    text = opening(
        "And the second?",
        "x" * 300_000,
        context_name="context_1",
        limits=RunLimits(usd=2.5),
        domain="logs",
        aliases=["strong", "fast"],
        tools=[tool, replace(tool, name="plain", signature="()", description="")],
        session_note="One earlier question.",
    )
    assert_snapshot("opening-everything", text)


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_what_is_said_of_a_domain(domain: str) -> None:
    """Each addendum is these bytes, and stands in the first message."""
    assert_snapshot(f"domain-{domain}", DOMAINS[domain])
    assert DOMAINS[domain] in opening("Which?", "x", domain=domain)


def test_what_is_quoted_of_a_context_can_be_left_out() -> None:
    """The form that trajectories keep has the digest of the context and nothing of its text."""
    made = opening_of("", "secret " * 10)
    text = opening_text(made, quotes=False)

    assert "secret" in opening_text(made)
    assert "secret" not in text
    assert made.context.sha256_hex in text


def test_the_brief_first_message() -> None:
    """A small model is given the question, or both ends of what holds it."""
    text = brief_opening_text(opening_of("Who?", "x")) + "\n\n"
    text += brief_opening_text(opening_of("", "Say hello."))
    assert_snapshot("opening-brief", text)


def test_remarks() -> None:
    """What the engine says in the course of a run is these bytes."""
    replies = {
        "cut off": parse_reply("```repl\nx", accepts_bare_code=False, was_cut=True),
        "open": parse_reply("```repl\nx(", accepts_bare_code=False, was_cut=False),
        "foreign": parse_reply("```json\n1\n```", accepts_bare_code=False, was_cut=False),
        "unlabelled": parse_reply("```\n42\n```", accepts_bare_code=False, was_cut=False),
        "prose": parse_reply("It is 42.", accepts_bare_code=False, was_cut=False),
    }
    remarks = [
        *(f"{name}: {repair(reply, is_brief=False)}" for name, reply in replies.items()),
        *(f"{name}, brief: {repair(reply, is_brief=True)}" for name, reply in replies.items()),
        repetition(3),
        EMPTY_ANSWER,
        LAST_TURN,
        status(left_turn_count=2, left_query_count=1, left_s=119.9),
        status(left_turn_count=1, left_query_count=0, left_s=3_601),
        status(left_turn_count=5, left_query_count=2, left_s=61, left_usd=0.125),
        repeated_queries(2, 3),
        verifying(3),
        last_request("30 turns"),
    ]
    assert_snapshot("remarks", "\n\n".join(remarks))


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        ("gpt-5", "gpt-5"),
        ("openai/gpt-5.6-terra", "gpt-5"),
        ("GPT-5-mini", "gpt-5"),
        ("gpt-4o", "default"),
        ("qwen3-coder-480b-a35b-instruct", "qwen-coder"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "qwen-coder"),
        ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "small"),
        ("qwen3-30b-a3b", "default"),
        ("llama-3.2-3b", "small"),
        ("qwen3-8b", "small"),
        ("claude-opus-4-5", "default"),
        ("scripted:FILE", "default"),
        ("", "default"),
    ],
)
def test_a_models_name_chooses_its_profile(model: str, profile: str) -> None:
    """Family and size are read off the name; the active part of a mixture is not its size."""
    assert profile_for(model).name == profile


def test_the_chunking_table_is_ascending_and_closed() -> None:
    """Each size has one row."""
    bounds = [row.below_chars for row in CHUNKING]

    assert bounds[-1] is None
    assert [b for b in bounds if b] == sorted(b for b in bounds if b)


@pytest.mark.parametrize(
    ("total_chars", "row"),
    [(0, 0), (99_999, 0), (100_000, 1), (999_999, 1), (1_000_000, 2), (10_000_000, 3)],
)
def test_advice_follows_the_size(total_chars: int, row: int) -> None:
    """The row of a size is the first whose bound is above it."""
    advice = chunking_advice(total_chars=total_chars, query_chars=500_000)

    assert advice == CHUNKING[row].advice


def test_advice_is_true_for_a_small_sub_model() -> None:
    """A sub-model that cannot take 200,000 characters is not recommended pieces of that size."""
    assert chunking_advice(total_chars=90_000, query_chars=15_000) == (
        "Cut into pieces of 12,000 characters, all of it would take 8 queries: filter in Python "
        "before anything is sent."
    )
    assert chunking_advice(total_chars=9_000, query_chars=15_000) == CHUNKING[0].advice


def test_lengths_of_many_parts_are_cut_to_a_hundred() -> None:
    """The lengths of the first hundred parts are shown, and no more."""
    text = opening("Which?", ["x" * 7] * 1_000)

    assert "7,000 characters in all" in text
    assert "its first 100 parts" in text
    assert text.split("parts: ")[1].split(".\n")[0].split(", ") == ["7"] * 100


def test_a_text_of_the_caller_is_never_a_template() -> None:
    """Whatever a question holds arrives as it is."""
    generator = random.Random(5)  # noqa: S311 - repeatable, not secret
    for _ in range(200):
        question = "".join(generator.choices("{}%$\\\"'`:!0as\n", k=30)) + "?"

        assert f"Question:\n{question}\n\nThe variable" in opening(question, "x")


@pytest.mark.parametrize("question", ["{", "a\nb", "x" * 100_000])
def test_a_question_is_sent_as_it_is(question: str) -> None:
    """Checking a question that can be sent changes nothing."""
    assert checked_question(question) == question


def test_figures_read_as_a_person_would_say_them() -> None:
    """Singular, plural and rounding."""
    assert [counted(n, "query") for n in (0, 1, 2_000)] == ["0 queries", "1 query", "2,000 queries"]
    assert [duration(s) for s in (0.9, 1, 119.9, 120, 1_800)] == [
        *("0 seconds", "1 second", "119 seconds", "2 minutes", "30 minutes")
    ]
