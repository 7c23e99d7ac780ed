"""The documentation as tests read it: the README and every page of docs/, their programs, commands and links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ("_build", "_examples", "gallery")  # folders that the site is built in
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.relative_to(ROOT / "docs").parts[0] not in BUILT),
]
FENCE = re.compile(r"^( *)(```+)(\S*)\n(.*?)^\1\2$", re.M | re.S)


def page(name: str) -> str:
    """Of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """What stands between ``` and ```, of a language."""
    return [found[4] for found in FENCE.finditer(text) if found[3] == language]
