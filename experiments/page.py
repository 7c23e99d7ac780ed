"""One HTML page about many runs: no file beside it, nothing from the network."""

import base64
import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .collect import Row

STYLE = """
:root { --line: #dcdfe4; --soft: #f4f5f7; --text: #1c2330; --faint: #5b6472; --accent: #0072b2 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--text); background: #fff;
       font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { max-width: 46rem } .faint { color: var(--faint); font-size: .9rem }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem }
table { border-collapse: collapse; font-size: .85rem; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
td.wrap { white-space: normal; min-width: 13rem; overflow-wrap: break-word }
th { background: var(--soft) } tr:last-child td { border-bottom: 0 }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid var(--accent) }
th[aria-sort=ascending] button::after { content: " ↑" } th[aria-sort=descending] button::after { content: " ↓" }
figure { margin: 0; overflow-x: auto } img { max-width: max(100%, 40rem); height: auto; display: block }
.diverged, .incomplete, .interrupted { color: #b3261e; font-weight: 600 }
summary { cursor: pointer; color: var(--accent) } pre { margin: .3rem 0; font-size: .75rem; white-space: pre-wrap }
"""

SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what is missing comes last, both ways
    const found = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -found : found;
  };
  body.append(...[...body.rows].sort(order));
});
"""


def page(
    rows: list[Row],
    table: list[dict[str, str]],
    of_groups: list[dict[str, str]],
    figures: list[tuple[str, Path]],
    metrics: list[str],
) -> str:
    """The page's text.

    Args:
        rows: of every run, as `collect` returns them.
        table: of every config, as text.
        of_groups: of every test group of every config, as text; may be empty.
        figures: title and PNG file of each.
        metrics: test metrics to show of every run.
    """
    counts = Counter(row["status"] for row in rows)
    said = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Runs</title>",
        '<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,">',
        f"<style>{STYLE}</style><main><h1>{len(rows)} runs of {len(table)} configs</h1><p>{said}.</p>",
        "<h2>Results</h2><p class=faint>Test metrics in %, mean ± 95 % t-interval over the n seeds that are done; "
        "the others are counted, and left out of the means.</p>",
        _text_table(table),
    ]
    if of_groups:
        parts += [
            "<h2>Test groups</h2><p class=faint>Accuracy in %, mean ± 95 % t-interval over n seeds; and how far the test "
            "examples alone decide it, the 95 % interval of one run: Wilson's of a group, by bootstrap of their worst "
            f"and mean.</p><details><summary>{len(of_groups)} rows</summary>{_text_table(of_groups)}</details>",
        ]
    for title, path in figures:
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(
            f'<h2>{html.escape(title)}</h2><figure><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></figure>'
        )
    heads = ["config", "overrides", "seed", "status", "score", *(f"test {m}" for m in metrics), "seconds", "settings"]
    parts += ["<h2>Every run</h2>", _table(heads, [_run(row, metrics) for row in rows], sortable=True)]
    return "".join([*parts, f"</main><script>{SCRIPT}</script>"])


def _text_table(table: list[dict[str, str]]) -> str:
    return _table(list(table[0]), [[(_breakable(cell), cell) for cell in row.values()] for row in table])


def _run(row: Row, metrics: list[str]) -> list[tuple[str, Any]]:
    """(HTML, value to sort by) of each cell."""
    settings = {key.removeprefix("config."): value for key, value in row.items() if key.startswith("config.")}
    lines = html.escape("\n".join(f"{key} = {json.dumps(value)}" for key, value in sorted(settings.items())))
    numbers = [row["score"], *(row.get(f"test/{metric}") for metric in metrics), row["seconds"]]
    scales = [100] * (len(numbers) - 1) + [1]
    status = row["status"]
    return [
        (html.escape(row["name"]), row["name"]),
        (_breakable(row["overrides"]), row["overrides"]),
        (str(row["seed"]), row["seed"]),
        (f"<span class={status}>{status}</span>", status),
        *(("" if v is None else f"{s * v:.1f}", "" if v is None else v) for v, s in zip(numbers, scales)),
        (f"<details><summary>config</summary><pre>{lines}</pre></details>", ""),
    ]


def _breakable(text: str) -> str:
    return html.escape(text).replace(",", ",<wbr>")


def _table(heads: list[str], rows: list[list[tuple[str, Any]]], sortable: bool = False) -> str:
    """Overrides may break their lines, other cells not; wide tables scroll in their own frame."""
    wide = {heads.index(name) for name in ("overrides", "settings") if name in heads}
    head = "".join(f"<th scope=col>{f'<button>{h}</button>' if sortable else h}" for h in map(html.escape, heads))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td{" class=wrap" if i in wide else ""} data-value="{html.escape(str(value))}">{cell}'
            for i, (cell, value) in enumerate(row)
        )
        for row in rows
    )
    return f"<div class=scroll tabindex=0><table><thead><tr>{head}<tbody>{body}</table></div>"
