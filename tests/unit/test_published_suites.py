"""What other projects' suites try is tried here, or said why not."""

import fnmatch
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.threat_model import read_tests

from orchestrator.attacks.battery import BATTERY

TESTS = Path(__file__).parents[1]
LIST = TESTS / "support" / "corpora" / "published_suites.toml"
ATTACKS = {attack.attack_id for attack in BATTERY}
SUITES: list[dict[str, Any]] = tomllib.loads(LIST.read_text("utf-8"))["suite"]
ITEMS = [(suite["name"], item) for suite in SUITES for item in suite["items"]]


@cache
def known_tests() -> frozenset[str]:
    return frozenset(
        f"{path.stem}.{test.name}"
        for path in TESTS.glob("*/test_*.py")
        for test in read_tests(path)
    )


@pytest.mark.parametrize(
    ("suite", "item"), ITEMS, ids=[f"{suite}: {item['item']}" for suite, item in ITEMS]
)
def test_item_is_tried_or_cannot_arise(suite: str, item: dict[str, Any]) -> None:
    """Tests and attacks that are named exist; an item without any says why it cannot arise."""
    tests, attacks = item.get("tests", []), item.get("attacks", [])

    missing = [name for name in tests if not fnmatch.filter(known_tests(), name)]
    assert missing == [], suite
    assert set(attacks) <= ATTACKS
    assert bool(tests or attacks) != bool(item.get("note"))
