"""A cell that finds its way past the language policy, to modules it was not given.

The policy is a guard rail. What stops such a cell is what it finds outside of Python: each act
below names the wall that it meets, which has tests of its own, with their controls.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import open_provider
from support.gadgets import GADGETS

from orchestrator.domain import LanguagePolicy, Outcome
from orchestrator.ports import Sandbox

pytestmark = pytest.mark.docker

#: What whoever holds a module of the system would do with it, and the wall in the way.
WALLS = {
    "become root": "no capability and no new privilege: test_user_and_privileges",
    "change the image": "a root file system that is read-only: test_root_file_system",
    "read the worker's memory": "a worker that cannot be inspected: test_proc_of_the_worker",
    "run a shell": "an image without programs: test_root_file_system",
    "reach a network": "no network device: test_network",
}
#: What a wall answers, by the name of the error; which of them is for the wall's own tests to say.
REFUSALS = {"PermissionError", "OSError"}
# The module of the operating system, by way of what the gadget has reached and nothing else.
_HOLD = """
def held(thing):
    name = getattr(thing, "__name__", type(thing).__name__)
    if name in ("os", "posix"):
        return thing
    if name == "sys":
        return thing.modules["os"]
    if name == "dict":
        return thing["os"]
    if name == "system":
        return getattr(thing, "__se" + "lf__")
    return getattr(getattr(thing, "subprocess", thing), "os", None) or getattr(thing, "_os", None)
"""
_ACT = """
def act(name, *arguments):
    try:
        return getattr(system, name)(*arguments)
    except OSError as error:
        return type(error).__name__

def connect():
    network = __import__("asyncio").base_events.socket
    try:
        return network.create_connection(("198.51.100.7", 80), timeout=5) and "connected"
    except OSError as error:
        return type(error).__name__

system = held(reached) if not isinstance(reached, str) else None
print(json.dumps(system and {
    "become root": act("setuid", 0),
    "change the image": act("open", "/usr/lib/planted", 0o102),
    "read the worker's memory": act("open", "/proc/1/mem", 0),
    "run a shell": act("system", "exit 0"),
    "reach a network": connect(),
    "end the worker": act("kill", 1, 9),
}))
"""


async def told(sandbox: Sandbox, source: str) -> Any:  # noqa: ANN401 - JSON
    """Returns what a cell prints; without the probes' prelude, whose imports the policy refuses."""
    result = await sandbox.run_cell(f"import json\n{source}", timeout_s=20)
    assert result.outcome is Outcome.SUCCEEDED, (source, result.error)
    return json.loads(str(result.stdout))


@pytest.mark.parametrize("policy", list(LanguagePolicy))
async def test_gadget_gains_nothing(policy: LanguagePolicy) -> None:
    """Whatever gets past the policy, or needs no way past, meets the walls, and the session lives.

    The control of each gadget is that it reaches what it says, here as on the host.
    """
    is_open = policy is LanguagePolicy.OPEN
    gadgets = [gadget for gadget in GADGETS if is_open or not gadget.is_refused]
    async with open_provider(policy=policy) as provider, provider.open(EchoQueries()) as sandbox:
        for gadget in gadgets:
            came = await told(sandbox, gadget.source + _HOLD + _ACT)
            if gadget.reaches == "str":
                assert came is None  # a text about a namespace is no way into it
                continue
            assert came.pop("run a shell") != 0, gadget.name
            came.pop("end the worker")  # that it did not is what the next cell shows
            assert came.keys() == WALLS.keys() - {"run a shell"}
            assert set(came.values()) <= REFUSALS, (gadget.name, came)
        assert await told(sandbox, "print(json.dumps(llm_query('any?')))") == "echo: any?"
