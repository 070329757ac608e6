"""The project's pages, and what is fenced in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name_of(page: Path) -> str:
    """Returns what a page is called in the name of a test."""
    return str(page.relative_to(ROOT))


def samples(page: Path, language: str) -> list[str]:
    """Returns the fenced samples of one language; a longer fence may hold shorter ones."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
