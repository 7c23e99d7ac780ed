"""Build one HTML page about many runs; the page needs no other file and no internet connection.

`contents` reads what the page shows of each run. `overview` collects the data for comparing all runs, and `run_details` the
data about each single run. index.html.j2, style.css and the scripts draw these data in the browser; the scripts use D3 and
Observable Plot (vendor/, ISC licence). failures.html.j2 is another page, that of `imbalance failures`.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imbalance.report.collect import Row
from imbalance.report.page.contents import Content, page_contents
from imbalance.report.page.examples import Example
from imbalance.report.page.overview import Shared, overview
from imbalance.report.page.run_details import TaskKey, run_details
from imbalance.utils.optional import optional

if TYPE_CHECKING:
    from jinja2 import Template

HERE = Path(__file__).parent
SCRIPTS = (
    "vendor/d3.min.js", "vendor/plot.umd.min.js", "stats.js", "model.js", "table.js", "charts.js", "run.js", "app.js"
)  # fmt: skip


def page(
    work_dir: Path,
    rows: list[Row],
    metrics: Sequence[str],
    figures: Sequence[tuple[str, Path]] = (),
    pictured: int = 20,
    live: str = "",
    contents: Sequence[Content] | None = None,
    rendered: dict[TaskKey, dict[int, Example]] | None = None,
) -> str:
    """Return the HTML of the report page.

    Args:
        work_dir: folder of the run directories.
        rows: one row for each run, as `collect` returns it.
        metrics: test metrics. The page ranks the methods by the first metric until the reader chooses another.
        figures: title and PNG file of each figure to embed.
        pictured: number of runs for which the page shows misclassified examples; their data sets are read.
        live: `WatchedRuns.stamp` if `imbalance watch` serves the page; "" otherwise.
        contents: what `read_content` returns for each run; None to read the runs.
        rendered: examples that were rendered earlier, see `run_details`.

    Raises:
        BadInput: jinja2 is not installed.
    """
    template = read_template("index.html.j2")
    contents, shared = page_contents(work_dir, rows) if contents is None else contents, Shared()
    all_runs = overview(rows, contents, metrics, shared)
    details, examples = run_details(work_dir, rows, contents, all_runs, shared, pictured, rendered)
    return template.render(
        style=read_style(),
        scripts=[_script((HERE / name).read_text(encoding="utf-8")) for name in (*SCRIPTS, *["live.js"] * bool(live))],
        overview=embedded_json(all_runs | {"shared": shared.values()}),
        examples=embedded_json(examples),
        details=[embedded_json(run) for run in details],
        figures=[(title, base64.b64encode(path.read_bytes()).decode()) for title, path in figures],
        statuses=all_runs["statuses"],
        runs=len(rows),
        settings=len(all_runs["settings"]),
        live=live,
    )


def read_template(name: str) -> "Template":
    """Return the template `name` of this folder; the template escapes every text that is not marked as safe.

    Raises:
        BadInput: jinja2 is not installed.
    """
    install = "the page needs jinja2, which is not installed; type pip install -c constraints.txt -e '.[report]'"
    with optional("jinja2", message=install):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    loader = FileSystemLoader(HERE)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def read_style() -> str:
    """Return the style sheet of the pages."""
    return (HERE / "style.css").read_text(encoding="utf-8")


def embedded_json(value: Any) -> str:
    """Return JSON for a <script> element. `<` is escaped, so no text can end the element; nan becomes null."""
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:  # a value is not finite
        text = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script")
