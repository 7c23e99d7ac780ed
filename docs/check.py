"""Check that the built site fetches nothing from another host, and that its search finds every method.

python docs/check.py docs/_build
"""

import json
import re
import sys
from pathlib import Path

from snowballstemmer import stemmer
from sphinx.search.en import SearchEnglish

ASKS = re.compile(
    r"""<(?:script|img|iframe|source|audio|video)\b[^>]*\bsrc(?:set)?=["']([^"']+)|<link\b[^>]*>|@import[^;]+"""
)
STYLE = re.compile(r"""url\(\s*["']?(?:https?:)?//[^)]*\)|@import\s+[^;]*//[^;]*""")


def requests(site: Path) -> list[str]:
    """Return a line for each file that a page or style sheet of the site would fetch from another host."""
    fetched = []
    for page in site.rglob("*.html"):
        for ask in ASKS.finditer(page.read_text(encoding="utf-8")):
            target = ask[1] or ask[0]
            if re.search(r"(?:^|[\"' ,])(?:https?:)?//", target) and 'rel="canonical"' not in target:
                fetched.append(f"{page}: {target}")
    for sheet in site.rglob("*.css"):
        fetched += [f"{sheet}: {url[0]}" for url in STYLE.finditer(sheet.read_text(encoding="utf-8"))]
    return fetched


def missed_by_search(site: Path, methods: Path) -> list[str]:
    """Return the methods whose page the search of the site does not find by the name of the method.

    The search compares word stems, and finds a page only if the page has all words of the name.
    """
    index = json.loads(re.sub(r"^Search\.setIndex\(|\)$", "", (site / "searchindex.js").read_text(encoding="utf-8")))
    stem, missed = stemmer("english").stemWord, []

    def pages(word: str) -> set[int]:
        hits = [table.get(key, []) for table in (index["terms"], index["titleterms"]) for key in (word, stem(word))]
        return {number for hit in hits for number in (hit if isinstance(hit, list) else [hit])}

    rows = re.findall(r"^\| \[([^\]]+)\]\(([\w-]+)\.md\)", methods.read_text(encoding="utf-8"), re.M)
    for title, slug in rows:
        number = index["docnames"].index(f"methods/{slug}")
        for name in re.split(r"; |, | and ", title):
            words = [word for word in re.findall(r"\w+", name.lower()) if word not in SearchEnglish.stopwords]
            if any(number not in pages(word) for word in words):
                missed.append(f"{name} ({slug})")
    return missed or ([] if len(rows) > 20 else ["the table of methods/index.md, which has 20 rows or fewer"])


if __name__ == "__main__":
    site, here = Path(sys.argv[1]), Path(__file__).parent
    wrong = [f"fetched from another host: {ask}" for ask in requests(site)]
    wrong += [
        f"not found by the search of the site: {name}" for name in missed_by_search(site, here / "methods" / "index.md")
    ]
    print(
        "\n".join(wrong)
        or f"{site}: {len(list(site.rglob('*.html')))} pages; none fetches anything from another host; the search finds every method"
    )
    sys.exit(bool(wrong))
