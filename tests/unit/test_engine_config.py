"""The engine's configuration file, and what of it stays when a runtime is added."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SettingsError
from orchestrator.sandbox.engine_config import read_config, with_runtime, write_config

OF_AN_OPERATOR = {
    "registry-mirrors": ["https://mirror.example"],
    "log-opts": {"max-size": "10m"},
    "runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}},
    "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
}


def added(text: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(
        with_runtime(text, name="runsc", path="/usr/bin/runsc", arguments=("--network=none",))
    )


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_runtime_is_added_to_nothing(text: str) -> None:
    """A host without the file, or with an empty one, gets one with the runtime alone."""
    assert added(text) == {
        "runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none"]}}
    }


def test_nothing_is_lost() -> None:
    """Whatever an operator has configured is there afterwards, in its order."""
    found = added(json.dumps(OF_AN_OPERATOR))

    assert found["runtimes"].pop("runsc") == {
        "path": "/usr/bin/runsc",
        "runtimeArgs": ["--network=none"],
    }
    assert found == OF_AN_OPERATOR
    assert list(found) == list(OF_AN_OPERATOR)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ('{"debug": true,}', "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"runtimes": []}', "`runtimes` is not an object"),
        ('{"debug": true, "debug": false}', "'debug' is said twice"),
        ('{"runtimes": {"runsc": {"path": "/opt/runsc"}}}', "has a runtime runsc already"),
    ],
)
def test_what_cannot_be_added_to_is_refused(text: str, words: str) -> None:
    """A file that is broken, ambiguous or already has such a runtime is its owner's to correct."""
    with pytest.raises(SettingsError, match=words) as caught:
        added(text)

    assert "Nothing was changed" in str(caught.value)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are not guessed at either."""
    (tmp_path / "daemon.json").write_bytes(b"\xff{}")

    with pytest.raises(SettingsError, match="cannot be read"):
        read_config(tmp_path / "daemon.json")


def test_file_is_made_with_its_folder_and_removed_again(tmp_path: Path) -> None:
    """A host that never configured its engine has neither; taking back leaves no empty file."""
    file = tmp_path / "docker" / "daemon.json"

    assert read_config(file) == ""
    write_config(file, "{}\n")
    assert (read_config(file), file.stat().st_mode & 0o777) == ("{}\n", 0o644)
    write_config(file, "")
    assert list(file.parent.iterdir()) == []


def test_mode_and_link_stay(tmp_path: Path) -> None:
    """Who keeps the file elsewhere, or closed to others, keeps it so."""
    real, link = tmp_path / "real.json", tmp_path / "daemon.json"
    real.write_text("{}")
    real.chmod(0o600)
    link.symlink_to(real)

    write_config(link, '{"debug": true}')

    assert link.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == ('{"debug": true}', 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daemon.json", "real.json"]
