"""What pages of the site take from the code, so that no page is a copy of it: a comment in a page stands for each.

<!-- entry: loss.poly -->       a method, data set or network: how a config names it, its docstring, values and ranges
<!-- facts -->                  of a method's page: its row in the table of methods/index.md
<!-- numbers: ERM; IRM -->      the rows of the tables in results.md that begin so
<!-- published: VS; LDAM -->    the paper's values of figures 3 to 5
<!-- literature: DFR -->        what other papers say of a method, from literature.csv
<!-- commands -->               every command of the command line
<!-- schema -->                 every key of a config
<!-- doc: module:function -->   a docstring
"""

import csv
import functools
import importlib
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from sphinx.application import Sphinx

from imbalance.cli import main as cli
from imbalance.cli.commands import COMMANDS
from imbalance.config import experiment as config
from imbalance.config.registries import registries
from imbalance.config.resolve import CONFIGS, load
from imbalance.config.schema import describe_annotation, keyword_annotations, look_up

HERE = Path(__file__).parent
PLACES = {
    "data": "what there is to learn from",
    "groups": "what methods see as groups",
    "sampler": "which examples an epoch draws",
    "weights": "how much each example counts",
    "mix": "whether examples are mixed",
    "loss": "one value an example",
    "objective": "the values of a batch → one scalar",
    "model": "the network",
    "head": "what becomes of the last layer after training",
    "optim": "how the weights move",
    "optim.schedule": "how the learning rate moves",
}


# Docstrings as Markdown


def escaped(text: str) -> str:
    """Plain text whose signs mean nothing to Markdown, but for its `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_|<\[\]$^~#{}])", r"\\\1", part) for part in parts)


def markdown(doc: str, values: dict[str, Any] | None = None) -> str:
    """A docstring as Markdown: its paragraphs, its indented code, and under Args a line for each value, with its range."""
    head, *sections = re.split(r"^(Args|Raises|Returns):\n", inspect.cleandoc(doc), flags=re.M)
    lines, code = [], False
    for line in head.splitlines():
        starts = line.startswith("    ") and not code
        ends = code and line and not line.startswith("    ")
        lines += (["```text"] if starts else []) + (["```", ""] if ends else [])
        code = (code or starts) and not ends
        lines.append(line[4:] if code else escaped(line))
    lines += ["```"] if code else []
    told = set()
    for name, body in zip(sections[::2], sections[1::2]):
        if name == "Args" and values is not None:
            lines.append("")
            for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", body, re.M):
                keys = [key for key in names.split(", ") if key in values]
                told |= set(keys)
                ranges = "; ".join(dict.fromkeys(describe_annotation(values[key]) for key in keys))
                if keys:
                    text = escaped(" ".join(text.split()))
                    lines.append(f"- `{'`, `'.join(keys)}`: {text} *({escaped(ranges)})*")
        elif name == "Raises":
            lines += ["", f"Raises {escaped(' '.join(body.split()))}"]
    for key in values or {}:
        if key not in told:
            lines.append(f"- `{key}`: *{escaped(describe_annotation(values[key]))}*")
    text = re.sub(r"(?<!\n)\n- `", "\n\n- `", "\n".join(lines), count=1)  # a list begins after an empty line
    return re.sub(r"(\n- [^\n]*)\n+(?=- )", r"\1\n", re.sub(r"\n{3,}", "\n\n", text))


@functools.cache
def used() -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    """Of every entry of a table that a config uses: the first such config, and what it says."""
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for file in sorted(CONFIGS.rglob("*.py")):
        sections = load(file).to_dict()
        sections["optim.schedule"] = sections["optim"].pop("schedule")
        for path in registries():
            found.setdefault((path, sections[path]["name"]), (file.stem, sections[path]))
    return found


def of_table(path: str, name: str) -> str:
    """How a config names an entry of a table, and what it is."""
    function = look_up(registries()[path], name)
    values = keyword_annotations(function)
    file, section = used().get((path, name), ("", {}))
    said = ", ".join(f"{key}={section[key]!r}" if file else f"{key}=..." for key in values)
    call = f"config.{path} = create(name={name!r}{', ' if said else ''}{said})"
    if len(call) > 100:
        inner = "".join(f"    {key}={section[key]!r},\n" if file else f"    {key}=...,\n" for key in values)
        call = f"config.{path} = create(\n    name={name!r},\n{inner})"
    note = f"  # configs/{file}.py" if file and values else ""
    while isinstance(function, functools.partial):
        function = function.func
    text = function.__doc__ or ""
    return f"```python\n{call}{note}\n```\n\n{markdown(text, values)}\n"


def an_entry(argument: str, page: str) -> str:
    path, _, name = argument.rpartition(".")
    return f"*Acts on*: {PLACES[path]} (`config.{path}`).\n\n{of_table(path, name)}"


# Tables


def rows(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def facts(argument: str, page: str) -> str:
    """Paper and labels of a method, from the table of all."""
    lines = [line for line in (HERE / "methods" / "index.md").read_text(encoding="utf-8").splitlines()
             if f"]({Path(page).name}.md)" in line]  # fmt: skip
    if not lines:
        raise ValueError(f"{page}: no row of methods/index.md links to it")
    table = ["| method | paper | in a config | labels it reads |", "|---|---|---|---|"]
    return "\n".join([*table, *(re.sub(r"\[([^\]]*)\]\([\w-]+\.md\)", r"\1", line) for line in lines)]) + "\n"


def numbers(argument: str, page: str) -> str:
    """Rows of the tables in results.md whose first cell is one of those named, under the commands that made them."""
    wanted, found = [name.strip() for name in argument.split(";")], []
    command, lines = "", (HERE / "results.md").read_text(encoding="utf-8").splitlines()
    for at, line in enumerate(lines):
        if line.startswith("imbalance "):
            command = line
        if line.startswith("|---"):
            table = []
            for row in lines[at + 1 :]:
                if not row.startswith("|"):
                    break
                table += [row] if rows(row)[0] in wanted else []
            if len(table) > 1:
                found.append("\n".join([f"`{command}`", "", lines[at - 1], line, *table, ""]))
    if not found:
        raise ValueError(f"{page}: no table of results.md has more than one of {argument}")
    return "\n".join(found) + "\nThe whole tables, and what they are of, are in [Results](../results.md).\n"


def published(argument: str, page: str) -> str:
    wanted = [name.strip() for name in argument.split(";")]
    titles = {"figure3": "last epoch", "figure4": "early-stopped", "figure5": "last epoch"}
    lines = ["| Wang et al., row | data | test accuracy, published |", "|---|---|---|"]
    with (HERE.parent / "experiments" / "published.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            figure, _, data = row["source"].partition(" ")
            if row["name"] in wanted and figure in titles:
                n = f" (n = {row['n']})" if row["n"] else ""
                lines.append(f"| {row['name']} | {figure}, {data} | {row['value']} ± {row['standard_deviation']}{n} |")
    if len(lines) == 2:
        raise ValueError(f"{page}: published.csv has none of {argument}")
    return "\n".join(lines) + "\n"


def literature(argument: str, page: str) -> str:
    """On data that need a GPU, so that ours are not beside them: the last one's, and on the same data the others'."""
    wanted = [name.strip() for name in argument.split(";")]
    lines = ["| method | data | test accuracy, %, published | in | here |", "|---|---|---|---|---|"]
    with (HERE / "literature.csv").open(encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    data = {row["data"] for row in told if row["name"] == wanted[-1]}
    for row in told:
        if row["name"] in wanted and row["data"] in data:
            lines.append(f"| {row['name']} | {row['data']} | {row['value']} | {row['source']} | not measured |")
    if len(lines) == 2:
        raise ValueError(f"{page}: literature.csv has none of {argument}")
    return "\n".join(lines) + "\n"


# The command line and the schema


def commands(argument: str, page: str) -> str:
    text = []
    for name, command in COMMANDS.items():
        if command.hidden:
            continue
        text += [f"## imbalance {name}", "", markdown(cli.docstring(command) or command.about), ""]
        lines = []
        for action in cli.parser_of(name)._actions:
            flag = " ".join(filter(None, [action.option_strings[0] if action.option_strings else "", action.metavar]))
            flag = flag or action.dest
            choices = f" One of {', '.join(action.choices)}." if action.choices else ""
            lines.append(
                f"| `{flag}` | {escaped(action.help or '')}{escaped(choices)}{' **Needed.**' if action.required else ''} |"
            )
        if command.overrides:
            lines.append("| `--config.<key>=<value>` | overrides what a config says; may be given many times |")
        text += ["| flag | what it says |", "|---|---|", *lines, ""] if lines else []
    return "\n".join(text)


def typed(section: Any) -> str:
    """The keys of a `TypedDict`, and what the comments beside them say."""
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(section), re.M))
    hints = get_type_hints(section, include_extras=True)
    lines = ["| key | value | meaning |", "|---|---|---|"]
    for key, hint in hints.items():
        lines.append(f"| `{key}` | {escaped(describe_annotation(hint))} | {escaped(comments.get(key, ''))} |")
    return "\n".join(lines) + "\n"


def schema(argument: str, page: str) -> str:
    text = ["## The whole", "", typed(config.Experiment)]
    for name, section in (("trainer", config.Trainer), ("callbacks", config.Callbacks), ("logger", config.Logger)):
        text += [f"## {name}", "", typed(section)]
    for path, table in registries().items():
        text += [f"## {path}", "", f"{PLACES[path].capitalize()}.", ""]
        for name in table:
            text += [f"### {path}: {name}", "", of_table(path, name)]
    return "\n".join(text)


def doc(argument: str, page: str) -> str:
    module, _, function = argument.partition(":")
    return markdown(getattr(importlib.import_module(module), function).__doc__, {}) + "\n"


MADE: dict[str, Callable[[str, str], str]] = {
    "entry": an_entry,
    "facts": facts,
    "numbers": numbers,
    "published": published,
    "literature": literature,
    "commands": commands,
    "schema": schema,
    "doc": doc,
}
MARK = re.compile(rf"^<!-- ({'|'.join(MADE)})(?:: (.*?))? -->$", re.M)


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    text = MARK.sub(lambda mark: MADE[mark[1]](mark[2] or "", page), source[0])
    source[0] = re.sub(r"^\|.*\|$", lambda row: unbroken(row[0]), text, flags=re.M)


def unbroken(row: str) -> str:
    """A row of a table, whose intervals stay on one line."""
    return re.sub(r"(?<=[\d*]) ± (?=\d)|(?<=\d) to (?=-?\d[\d.]*\))", lambda found: found[0].replace(" ", "\xa0"), row)


def made_from_code(app: Sphinx, environment: Any, *pages: set[str]) -> list[str]:
    """The pages that are read at every build, for the code may have changed."""
    return [
        page
        for page in environment.found_docs
        if MARK.search(Path(environment.doc2path(page)).read_text(encoding="utf-8"))
    ]


# The API and the gallery


def plain(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: to reStructuredText their other signs mean nothing either.

    Their lists of `name: what it is` before the sections become lists.
    """
    parts = re.split(r"(`[^`]*`)", "\n".join(lines))
    text = "".join(
        f"`{part}`" if part.startswith("`") else re.sub(r"([\\*|]|_(?!\w))", r"\\\1", part) for part in parts
    )
    head, section, rest = re.split(r"(^(?:Args|Raises|Returns):\n|\Z)", text, maxsplit=1, flags=re.M)
    item = re.compile(r"^([a-z_]\w*(?:, \w+)*): (.*(?:\n {4}.*)*)\n?", re.M)
    head = item.sub(lambda found: f"\n- **{found[1]}**: " + re.sub(r"\n {4}", "\n  ", found[2]) + "\n", head)
    lines[:] = [*head.splitlines(), "", *(section + rest).splitlines()]


def fresh_folder(gallery: Any, script: str) -> None:
    """Before each script of the gallery: what those before it have written is gone."""
    for path in (HERE / "_examples").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix not in (".py", ".rst"):
            path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fill)
    app.connect("env-get-outdated", made_from_code)
    app.connect("autodoc-process-docstring", plain, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
