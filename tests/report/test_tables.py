"""Names from configs, data and folders stand in tables and figures as they are, and do nothing there."""

import csv
import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from imbalance.report.tables import LATEX, latex, latex_cell, markdown, write_csv
from imbalance.utils.output import csv_cell

NASTY = [
    "$\\frac{", "a|b", "<b>&amp;", "50 % & more", "a_b^c~d#e", "`x` *y* [z](u)", "two\nlines", "\x1b[31mred", "größe ±", "}{\\end{tabular}",
    "*", "[1em]", '"quoted"', "-- and –", "\\input{/etc/passwd}", "=1+1", "x° × 2",
]  # fmt: skip


def test_a_markdown_table_keeps_its_shape():
    text = markdown(["name", "n"], [[name, 1] for name in NASTY])
    lines = text.splitlines()
    assert len(lines) == 2 + len(NASTY) and "\x1b" not in text
    for name, line in zip(NASTY, lines[2:]):
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
        assert len(cells) == 4 and cells[2].strip() == "1"
        shown = html.unescape(re.sub(r"\\([\\|`*$\[~])", r"\1", cells[1][1:-1]).replace("&lt;", "<"))
        assert shown == name.replace("\n", "\\n").replace("\x1b", "\\x1b") or "&" in name


def test_a_latex_table_has_no_command_but_its_own():
    for name in NASTY:
        cell = latex_cell(name)
        own = sorted(set(LATEX.values()) | {"\\n", "\\x1b"}, key=len, reverse=True)
        rest = re.sub("|".join(map(re.escape, own)), "", cell)
        assert not re.search(r"[\\&%$#_{}^~<>|\"\[\]*`\n]", rest), (name, cell)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_a_latex_table_compiles(tmp_path):
    """In LaTeX as it comes, without a font encoding of its own, and with plain lines for those of booktabs."""
    rules = "".join(f"\\let\\{rule}rule\\hline" for rule in ("top", "mid", "bottom"))
    table = latex(["a", "$b", "c_d"], [[name, name, 1] for name in NASTY], 2)
    document = f"\\documentclass{{article}}{rules}\\begin{{document}}{table}\\end{{document}}"
    (tmp_path / "table.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_a_csv_table_holds_no_formula_and_its_numbers_are_numbers(tmp_path):
    for text in ("=1+1", "+1+1", "-1+1", "@x", "\tx"):
        assert csv_cell(text) == "'" + text
    assert [csv_cell(value) for value in (-1.5, 3, None, "plain", "a=b", "-1")] == [-1.5, 3, None, "plain", "a=b", "-1"]
    rows = [{"name": name, "score": -0.5} for name in NASTY]
    write_csv(tmp_path / "t.csv", ["name", "score", "=lacking"], rows)
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["name"].removeprefix("'") for row in read] == NASTY
    assert all(row["score"] == "-0.5" and row["'=lacking"] == "" for row in read)


def test_figures_show_names_as_they_are(tmp_path):
    pytest.importorskip("matplotlib")
    from imbalance.report.plot_style import label, save, subplots

    figure, axis = subplots(1, 1, 3, 3)
    for name in ("$\\frac{", "_hidden", "a$b$c"):
        axis.plot([0, 1], label=label(name))
    axis.set_title(label("$\\frac{"))
    legend = axis.legend()
    assert [text.get_text().lstrip("\u200b").replace("\\$", "$") for text in legend.get_texts()] == ["$\\frac{", "_hidden", "a$b$c"]  # fmt: skip
    save(figure, tmp_path, "names")  # a formula that is none is refused when drawn


def test_a_saved_png_has_a_palette_and_the_colours_of_the_figure(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from imbalance.report.plot_style import PALETTE, save, subplots

    figure, axis = subplots(1, 1, 3, 3)
    for x, colour in enumerate(PALETTE):
        axis.bar(x, 1, color=colour)
    figure.savefig(tmp_path / "full.png", dpi=160)
    png = save(figure, tmp_path, "small")[0]
    with Image.open(png) as small, Image.open(tmp_path / "full.png") as full:
        assert small.mode == "P"
        difference = np.asarray(small.convert("RGB"), dtype=int) - np.asarray(full.convert("RGB"), dtype=int)
    assert np.abs(difference).max() <= 16  # of 255
    assert png.stat().st_size < 0.6 * (tmp_path / "full.png").stat().st_size
