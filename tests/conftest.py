"""The runtime under each test, and a word about those that could not run."""

from collections.abc import Iterator

import pytest
from support.runtimes import (
    RUNC,
    RuntimeUnderTest,
    both_runtimes,
    is_left_out,
    tested_under,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has each test that is marked so run once under each runtime."""
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    # A wall is tried under both without being asked to: nobody is to forget it.
    is_attack = "docker" in marks and metafunc.definition.path.parent.name == "security"
    if is_attack or "both_runtimes" in marks:
        cases = both_runtimes(metafunc.definition.path.name)
        metafunc.parametrize("runtime", cases, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what shows nothing more under gVisor."""
    left_out = {item for item in items if is_left_out(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module", autouse=True)
def runtime(request: pytest.FixtureRequest) -> Iterator[RuntimeUnderTest]:
    """The runtime that sandboxes of this test run under: runc, where a test does not ask."""
    chosen: RuntimeUnderTest = getattr(request, "param", RUNC)
    with tested_under(chosen):
        yield chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says loudly which half of the walls nobody has tried."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "gvisor" in getattr(report, "keywords", {})
    ]
    if skipped:
        terminalreporter.section("NOT TRIED UNDER GVISOR", sep="!")
        terminalreporter.line(f"{len(skipped)} tests of the walls did not run under gVisor.")
        terminalreporter.line(str(skipped[0].longrepr))
