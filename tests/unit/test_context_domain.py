"""The guess what a context is about, from the names of its files alone."""

from pathlib import Path

import pytest

from orchestrator.context_files import guess_domain, read_paths
from orchestrator.engine.prompts.domains import DOMAINS


@pytest.mark.parametrize(
    ("names", "domain"),
    [
        (["src/a.py", "src/b.ts", "README.md"], "code"),
        (["Makefile", "cmd/main.go"], "code"),
        (["a.py"], "code"),
        (["data.csv"], "tables"),
        (["DATA.TSV"], "tables"),
        (["records.jsonl"], "tables"),
        (["app.log"], "logs"),
        (["app.log", "app.log.1", "app.log.2"], "logs"),
        (["a.py", "notes.md"], ""),
        (["a.py", "data.csv", "app.log"], ""),
        (["letter.txt"], ""),
        (["catalog", ".log", "log"], ""),
        ([], ""),
    ],
)
def test_domain_is_that_of_most_files(names: list[str], domain: str) -> None:
    """What more than half of the files are called counts; where none does, nothing is guessed."""
    assert guess_domain(names) == domain
    assert domain in {"", *DOMAINS}


def test_domain_comes_with_the_context(tmp_path: Path) -> None:
    """What was read says what it may be about: a file by its name, a folder by those in it."""
    (tmp_path / "a.py").write_text("1", "utf-8")
    (tmp_path / "b.rs").write_text("1", "utf-8")
    (tmp_path / "c.log").write_text("1", "utf-8")

    assert read_paths(tmp_path, max_bytes=10).domain == "code"
    assert read_paths(tmp_path / "c.log", max_bytes=10).domain == "logs"
