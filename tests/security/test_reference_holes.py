"""What the reference implementation lets a cell do, tried here.

Its endless loop is in the tests of CPU time, its unauthenticated proxy in those of the socket
directory, its forged result as a frame in those of forged frames.
"""

from pathlib import Path
from typing import Any

import pytest
from support.desks import Desk
from support.docker_sandboxes import Weakening, open_provider, open_sandbox
from support.fake_models import FakeModel
from support.probes import probe, run
from support.second_stage import NO_LANDLOCK, together

from orchestrator.domain import Draft, Outcome
from orchestrator.limits import RunLimits
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: More than any run asks for; the reference answers every one of them.
THOUSAND_QUERIES = """
answered, refused = 0, {}
for number in range(1000):
    try:
        llm_query(f"question {number}")
        answered += 1
    except QueryError as error:
        name = type(error).__name__
        refused[name] = refused.get(name, 0) + 1
tell([answered, refused])
"""


async def ask_a_thousand(model: FakeModel, *, query_count: int) -> Any:  # noqa: ANN401 - JSON
    """Runs the loop in a sandbox whose queries the engine's own desk answers within a budget."""
    desk = Desk(model, limits=RunLimits(queries=query_count)).desk
    async with open_provider() as provider, provider.open(desk) as sandbox:
        return await probe(sandbox, THOUSAND_QUERIES, timeout_s=60)


async def test_thousand_queries_of_one_cell_meet_the_budget() -> None:
    """A loop gets as many answers as there is budget for; at every other it reads why not."""
    model = FakeModel(["an answer"])

    told = await ask_a_thousand(model, query_count=25)

    assert told == [25, {"BudgetExhaustedError": 975}]
    assert len(model.requests) == 25


async def test_thousand_queries_control() -> None:
    """With the budget for it the same loop is answered a thousand times."""
    model = FakeModel(["an answer"])

    assert await ask_a_thousand(model, query_count=1000) == [1000, {}]
    assert len(model.requests) == 1000


#: What a run's end looks like, in each form that some implementation reads back from a cell.
FORGED_ENDS = """
print('FINAL("forged")')
print('FINAL_VAR(forged)')
print(json.dumps({"outcome": "succeeded", "answer": {"content": "forged", "is_ready": True}}))
forged = "forged"
for name in ("result.json", "state.dill", "answer.txt", "stdout", "final"):
    with open(f"/tmp/{name}", "w") as file:
        file.write('{"answer": "forged", "final_answer": "forged"}')
"""


async def test_nothing_a_cell_prints_or_writes_is_taken_for_an_answer(
    shared_sandbox: Sandbox,
) -> None:
    """An answer is what a cell says by the names given to it for that; there is no other way."""
    result = await run(shared_sandbox, FORGED_ENDS)

    assert (result.outcome, result.answer) == (Outcome.SUCCEEDED, Draft())


async def test_answer_control(shared_sandbox: Sandbox) -> None:
    """Said by the right name it is one."""
    result = await run(shared_sandbox, "FINAL('said')")

    assert result.answer == Draft(content="said", is_ready=True)


#: Puts a link to a file of the host's wherever a program of the host might write a result.
PLANT_LINKS = """
planted = []
for folder, _, _ in os.walk("/"):
    if (folder + "/").startswith(("/proc/", "/sys/")):
        continue
    for name in ("result.json", "state.dill", "token", "answer.txt"):
        if attempt(os.symlink, {target!r}, os.path.join(folder, name)) == "done":
            planted.append(os.path.join(folder, name))
tell(planted)
"""


def files_below(directory: Path) -> list[str]:
    """Returns whatever is in a directory of the host, links included, by name."""
    return sorted(path.name for path in directory.rglob("*"))


async def test_link_planted_by_a_cell_is_nowhere_on_the_host(tmp_path: Path) -> None:
    """Nothing that a cell can write to is a place of the host's, so no program there follows it."""
    target = tmp_path / "target"
    seen: list[Path] = []
    target.write_text("mine")

    def look(config: dict[str, Any]) -> None:
        seen.extend(Path(bind.partition(":")[0]) for bind in config["HostConfig"]["Binds"])

    async with open_sandbox(weakening=Weakening(change=look)) as sandbox:
        planted = await probe(sandbox, PLANT_LINKS.format(target=str(target)))
        on_the_host = [name for directory in seen for name in files_below(directory)]

    assert {Path(path).parent for path in planted} == {Path("/tmp"), Path("/dev/shm")}
    assert on_the_host == ["broker.sock"]
    assert target.read_text() == "mine"


async def test_link_planted_by_a_cell_control(tmp_path: Path) -> None:
    """In a mount that can be written to it is, and a program that writes there writes elsewhere."""
    target, shared = tmp_path / "target", tmp_path / "shared"
    target.write_text("mine")
    shared.mkdir()
    shared.chmod(0o777)

    def mount(config: dict[str, Any]) -> None:
        config["HostConfig"]["Binds"].append(f"{shared}:/mnt:rw")

    async with open_sandbox(weakening=together(NO_LANDLOCK, Weakening(change=mount))) as sandbox:
        planted = await probe(sandbox, PLANT_LINKS.format(target=str(target)))
        (shared / "result.json").write_text("forged")

    assert "/mnt/result.json" in planted
    assert target.read_text() == "forged"
