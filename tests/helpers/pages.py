"""The pages of the documentation in Markdown, and the code blocks in them, for tests."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ("_build", "_examples", "gallery")  # folders that building the site writes to
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.relative_to(ROOT / "docs").parts[0] not in BUILT),
]
FENCE = re.compile(r"^( *)(```+)(\S*)\n(.*?)^\1\2$", re.M | re.S)


def page(name: str) -> str:
    """Return the text of a page in docs/.

    Args:
        name: the path of the page in docs/.
    """
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the content of each fenced code block of a language.

    Args:
        text: a page in Markdown.
        language: the word after the opening fence, such as "python".
    """
    return [fence[4] for fence in FENCE.finditer(text) if fence[3] == language]
