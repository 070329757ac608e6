"""Every attack on the broker's socket, from a process of this host; in a sandbox it is the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psutil
import pytest
from support.broker_host import PATIENCE_S, attached, until
from support.hostile_peer import RULES, open_target, strike
from support.http2_attacker import ATTACKS

from orchestrator.broker.ending import EndKind
from orchestrator.errors import ProtocolViolationError

#: The rule that each attack breaks.
BROKEN_RULES = {
    "ping_flood": "too many PING frames",
    "ping_answer_flood": "a PING is answered once",
    "settings_flood": "too many SETTINGS frames",
    "settings_answer_flood": "settings are acknowledged once",
    "window_update_flood": "WINDOW_UPDATE frames come for each",
    "rapid_reset": "streams are given up for each message|too many streams",
    "unfinished_streams": "streams are open at once",
    "continuation_flood": "a header block has at most 8,192 bytes",
    "empty_continuation_flood": "at most 4 CONTINUATION frames",
    "long_headers": "a header block has at most 8,192 bytes",
    "message_of_4_gib": "this one announces 4,294,967,295",
    "message_over_the_cap": "this one announces 4,194,305",
    "one_byte_data": "a message comes in few pieces",
    "empty_data": "too many empty DATA frames",
    "empty_messages": "too many messages|a query id is",
    "packed_message": "messages are not compressed",
    "connection_flood": "at most 4 connections at once",
    "connection_churn": "at most 16 connections in its life",
    "huge_frame": "a frame has at most 4,194,304 bytes",
    "window_overflow": "a window has at most 2,147,483,647 bytes",
    "window_of_nothing": "makes room for a byte at least",
    "made_you_reset": "too many streams|streams are open at once",
    "never_reading": "streams are open at once",
    "garbage": "begins with HTTP/2's preface",
    "garbage_frames": "a RST_STREAM frame has 4 bytes",
    "http_1": "begins with HTTP/2's preface",
    "tls": "begins with HTTP/2's preface",
    "priority_flood": "no frames of kind 2",
    "push_promise": "no frames of kind 5",
    "unknown_frames": "no frames of kind 190",
    "goodbye_flood": "a client says goodbye at most 4 times",
    "trailers": "headers begin a new stream",
    "interrupted_headers": "between the frames of a header block",
    "data_without_headers": "a stream begins with headers",
    "streams_backwards": "headers begin a new stream",
    "padded_data": "data are not padded",
    "data_after_the_end": "nothing is sent on a stream that the client has ended",
    "broken_headers": "gRPC gave it up",
    "wrong_path": "the methods are",
    "missing_tokens": "a sandbox dials once",
    "second_attachments": "a sandbox dials once",
    "wrong_content_type": "streams are open at once|a query is an LlmQueryRequest",
}
#: Attacks that are nothing but waiting, and the rule that ends it.
WAITING_RULES = {
    "half_a_preface": "begins with HTTP/2's preface and settings",
    "no_settings": "begins with HTTP/2's preface and settings",
    "half_a_frame": "that was begun is finished",
    "half_a_header_block": "that was begun is finished",
    "half_a_message": "that was begun is finished",
    "held_messages": "that was begun is finished",
}
#: Attacks that the server behind the gate lets go on, and how much of each shows it.
CONTROLS = {
    "ping_answer_flood": 0.2,
    "settings_flood": 0.2,
    "window_update_flood": 0.1,
    "rapid_reset": 0.05,
    "unfinished_streams": 0.05,
    "continuation_flood": 0.01,
    "one_byte_data": 0.1,
    "packed_message": 1,
    "message_over_the_cap": 1,
    "message_of_4_gib": 1,
    "connection_flood": 0.1,
    "connection_churn": 0.1,
    "half_a_preface": 1,
    "no_settings": 1,
    "half_a_frame": 1,
    "half_a_header_block": 1,
    "half_a_message": 1,
    "window_overflow": 1,
    "made_you_reset": 0.05,
    "priority_flood": 0.1,
    "push_promise": 1,
    "unknown_frames": 0.1,
    "goodbye_flood": 0.1,
    "data_without_headers": 1,
    "streams_backwards": 1,
    "padded_data": 1,
}
#: Waiting is looked at often here, so that a test does not wait.
IMPATIENT_RULES = replace(RULES, look_s=0.1, preface_looks=5, unfinished_looks=3)
#: Messages that are held back are legal until they are held for too long; see docs/adr/0013.
HELD_BYTES = RULES.offered_streams * RULES.message_bytes
GROWTH_BYTES = 32 * 2**20


def test_every_attack_is_named() -> None:
    """An attack without its rule would be tried by nobody."""
    assert BROKEN_RULES.keys() | WAITING_RULES.keys() == ATTACKS.keys()


@pytest.mark.parametrize("attack", BROKEN_RULES)
async def test_attack_breaks_a_rule_and_costs_little(attack: str) -> None:
    """Each attack ends its sandbox at once, by name, and leaves neither memory nor descriptors."""
    async with open_target() as target:
        found = await strike(target, attack, patience_s=3)

        assert found.end is not None
        assert found.end.kind in {EndKind.BROKEN, EndKind.EXCEEDED}
        with pytest.raises(ProtocolViolationError, match=BROKEN_RULES[attack]):
            raise found.end.error()
        assert found.is_closed
        assert found.growth_bytes < GROWTH_BYTES


@pytest.mark.parametrize("attack", WAITING_RULES)
async def test_waiting_breaks_a_rule(attack: str) -> None:
    """Whoever begins something and never ends it is not waited for for ever."""
    async with open_target(IMPATIENT_RULES) as target:
        found = await strike(target, attack, patience_s=5)

        assert found.end is not None
        with pytest.raises(ProtocolViolationError, match=WAITING_RULES[attack]):
            raise found.end.error()
        assert found.is_closed
        assert found.growth_bytes < HELD_BYTES + GROWTH_BYTES


@pytest.mark.parametrize("attack", CONTROLS)
async def test_attack_past_the_gate_control(attack: str) -> None:
    """The same bytes go on and on at the server itself: it is the gate that ends them."""
    async with open_target(IMPATIENT_RULES) as target:
        found = await strike(
            target, attack, past_the_gate=True, share=CONTROLS[attack], patience_s=0.2
        )

        assert not found.is_closed
        assert not (found.end and found.end.kind in {EndKind.BROKEN, EndKind.EXCEEDED})


async def test_descriptors_are_given_back() -> None:
    """Connections that are refused leave no descriptor behind, nor does the endpoint."""
    here = psutil.Process()
    async with open_target() as target:  # the first one opens what gRPC keeps
        await strike(target, "connection_flood")
    before_count = here.num_fds()
    async with open_target() as target:
        found = await strike(target, "connection_flood")
        assert found.end is not None
    await until(lambda: here.num_fds() <= before_count)


async def test_neighbour_goes_on_during_an_attack() -> None:
    """While one sandbox floods, another one's queries are answered within seconds, all of them."""
    async with open_target() as target, attached() as neighbour:
        cell = asyncio.create_task(neighbour.attachment.run_cell("pass", timeout_s=60))
        cell_id = await neighbour.worker.hear_cell()
        attacking = asyncio.create_task(strike(target, "rapid_reset"))
        answered_count = 0
        async with asyncio.timeout(PATIENCE_S):
            while not attacking.done() or not answered_count:
                query_id = f"q{answered_count}"
                await neighbour.worker.query(["?"], cell_id=cell_id, query_id=query_id)
                answered_count += 1
        await neighbour.worker.finish(cell_id)

        assert (await cell).usage is not None
        assert (await attacking).end is not None
