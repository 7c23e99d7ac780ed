"""The documentation as tests read it: every page in Markdown, and its programs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ("_build", "_examples", "gallery")  # folders that the site is built in
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.relative_to(ROOT / "docs").parts[0] not in BUILT),
]
FENCE = re.compile(r"^( *)(```+)(\S*)\n(.*?)^\1\2$", re.M | re.S)


def page(name: str) -> str:
    """Read a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [found[4] for found in FENCE.finditer(text) if found[3] == language]
