"""One HTML page about many runs: no file beside it, nothing from the network.

`facts` says what the page shows of all runs, `details` what it shows of one, and the files beside this one draw it in
the browser: index.html.j2, style.css, and the scripts, which use D3 and Observable Plot (vendor/, ISC licence).
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imbalance.errors import BadInput
from imbalance.report.collect import Row
from imbalance.report.page.details import details
from imbalance.report.page.facts import facts

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
) -> str:
    """The page's text.

    Args:
        work_dir: where the run directories are.
        rows: of every run, as `collect` returns them.
        metrics: test metrics, the first of which orders the methods until the reader chooses another.
        figures: title and PNG file of what is drawn elsewhere, such as the paper's figures.
        pictured: of how many runs the data set is read, to show the examples that they get wrong.
        live: of a page that `imbalance watch` serves, the stamp of what it shows.

    Raises:
        BadInput: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise BadInput("jinja2 is not installed; pip install -c constraints.txt -e '.[report]'") from None
    templates = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found = facts(work_dir, rows, metrics)
    of_runs, pictures = details(work_dir, rows, found, pictured)
    return templates.get_template("index.html.j2").render(
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        scripts=[_script((HERE / name).read_text(encoding="utf-8")) for name in (*SCRIPTS, *["live.js"] * bool(live))],
        facts=embedded(found),
        pictures=embedded(pictures),
        details=[embedded(of_run) for of_run in of_runs],
        figures=[(title, base64.b64encode(path.read_bytes()).decode()) for title, path in figures],
        statuses=found["statuses"],
        runs=len(rows),
        settings=len(found["settings"]),
        live=live,
    )


def embedded(value: Any) -> str:
    """JSON that may stand within a <script>: nothing in it can end the element. nan is null."""
    return json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _script(text: str) -> str:
    return text.replace("</script", "<\\/script")
