"""Format tables as Markdown, LaTeX and CSV, and escape the characters that have a meaning in each format."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imbalance.utils.files import names_file
from imbalance.utils.output import csv_cell, one_line

# Characters that would end a Markdown cell or begin a format in it. Underscores within words, as in our names, do not.
MARKDOWN = str.maketrans(
    {"\\": "\\\\", "|": "\\|", "`": "\\`", "*": "\\*", "<": "&lt;", "$": "\\$", "[": "\\[", "~": "\\~"}
)
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\char34}", "±": r"$\pm$", "–": "--", "[": "{[}", "]": "{]}", "°": r"$^\circ$",
    "*": "{*}", "`": r"\textasciigrave{}", "×": r"$\times$", "−": "$-$",
})  # fmt: skip


class Raw(str):
    """A cell that is Markdown already and is not escaped."""


def markdown_cell(value: Any) -> str:
    return value if isinstance(value, Raw) else _escape(value, MARKDOWN)


def latex_cell(value: Any) -> str:
    """Escape a cell for LaTeX. `[` and `*` are escaped too, because LaTeX reads them as an argument of the `\\\\` before them."""
    return _escape(value, LATEX)


def _escape(value: Any, replacements: dict[int, str]) -> str:
    return one_line(str(value)).translate(replacements)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table, with a newline after every row."""
    lines = [markdown_row(heads), "|" + "---|" * len(heads), *map(markdown_row, rows)]
    return "\n".join(lines) + "\n"


def markdown_row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(map(markdown_cell, cells)) + " |"


def latex(heads: Sequence[str], rows: Iterable[Sequence[Any]], text: int) -> str:
    """Return a LaTeX tabular with booktabs rules.

    Args:
        text: number of columns that hold text, which are left-aligned; all later columns are right-aligned.
    """

    def line(cells: Iterable[Any]) -> str:
        return " & ".join(map(latex_cell, cells)) + r" \\"

    body = "\n".join(map(line, rows))
    columns = "l" * text + "r" * (len(heads) - text)
    return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(heads)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def write_csv(path: Path, heads: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows as CSV; nan and missing keys are empty cells."""
    with names_file(path), open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, heads))
        # Most cells are numbers, and there can be millions, so only the others are given to `csv_cell`.
        writer.writerows(
            [cell if type(cell) is float else csv_cell(cell) for cell in map(row.get, heads)] for row in rows
        )
