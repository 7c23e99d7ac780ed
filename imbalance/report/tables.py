"""Tables as Markdown, LaTeX and CSV, safe from what stands in them: names come from configs, data and folders."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imbalance.utils.output import one_line

# Of Markdown, what would end a cell or begin another thing within it; underscores within words, as in our names, do not.
MARKDOWN = {"\\": "\\\\", "|": "\\|", "`": "\\`", "*": "\\*", "<": "&lt;", "$": "\\$", "[": "\\[", "~": "\\~"}
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\char34}", "±": r"$\pm$", "–": "--", "[": "{[}", "]": "{]}", "°": r"$^\circ$",
    "*": "{*}", "`": r"\textasciigrave{}", "×": r"$\times$", "−": "$-$",
}  # fmt: skip


class Raw(str):
    """A cell that is Markdown, and not to be escaped."""


def markdown_cell(value: Any) -> str:
    return value if isinstance(value, Raw) else _replaced(value, MARKDOWN)


def latex_cell(value: Any) -> str:
    """In a tabular: `[` and `*`, too, which after a line's `\\\\` would be its argument."""
    return _replaced(value, LATEX)


def csv_cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula begins with an apostrophe, which it hides; numbers stay."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def _replaced(value: Any, by: Mapping[str, str]) -> str:
    return "".join(by.get(character, character) for character in one_line(str(value)))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a line for every row, each ended."""
    lines = [markdown_row(heads), "|" + "---|" * len(heads), *map(markdown_row, rows)]
    return "\n".join(lines) + "\n"


def markdown_row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(map(markdown_cell, cells)) + " |"


def latex(heads: Sequence[str], rows: Iterable[Sequence[Any]], text: int) -> str:
    """A tabular of booktabs, whose first `text` columns are set to the left, and the others to the right."""

    def line(cells: Iterable[Any]) -> str:
        return " & ".join(map(latex_cell, cells)) + r" \\"

    body = "\n".join(map(line, rows))
    columns = "l" * text + "r" * (len(heads) - text)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(heads)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def write_csv(path: Path, heads: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """nan and what a row lacks are empty cells."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, heads))
        writer.writerows([csv_cell(row.get(head, "")) for head in heads] for row in rows)
