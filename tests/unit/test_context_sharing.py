"""Objects that are shared with the spares: what they are stays, what counts them stops."""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import pytest

from sandbox_image.repl.shared_pages import share

TEXT = """
{"records": [{"name": "a", "tags": ["b", {"c": null}], "n": 1.5}, {"name": "d", "n": 12345678901}],
 "nothing": {}, "none": []}
"""


def test_shared_value_is_what_it_was() -> None:
    """A cell finds the same value, and may change it as it likes."""
    value = json.loads(TEXT)
    share(value)

    assert value == json.loads(TEXT)
    value["records"][0]["tags"].append("more")
    del value["records"][1]
    value["nothing"]["key"] = copy.deepcopy(value["records"])
    assert value["nothing"]["key"] == [{"name": "a", "tags": ["b", {"c": None}, "more"], "n": 1.5}]


def test_deep_value_is_shared_without_recursion() -> None:
    """However deeply a value is nested, it does not overflow a stack."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    share(deep)
    while deep:  # by hand: to free it at once would overflow one
        deep = deep.pop()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python counts every holder (PEP 683)")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the image has an older Python")
def test_holders_of_a_shared_object_are_not_counted() -> None:
    """To hold an object writes nothing into it, or a page of it would be copied after a fork."""
    value = json.loads(TEXT)
    unshared = sys.getrefcount(value)
    share(value)
    objects = [value["records"], *value["records"], value["records"][0]["n"]]

    before = [sys.getrefcount(item) for item in objects]
    holders = objects * 10

    assert [sys.getrefcount(item) for item in objects] == before
    assert len(holders) == 10 * len(objects)
    assert sys.getrefcount(value) == unshared
