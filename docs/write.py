"""Write the generated parts of the documentation, from the code and from tables of results.

    python docs/write.py           # rewrite every page that is out of date
    python docs/write.py --check   # name every page that is out of date, and change nothing

A generated part of a page stands between two HTML comments, `<!-- generated: KIND ARGUMENT -->` and `<!-- end -->`. The
kinds and their arguments are:

    entry loss.poly          a method: how a config names it, and the meaning of its keys
    facts                    the row of methods/index.md that is about the page's method
    numbers ERM; IRM         the rows of the tables in results.md that begin with these names
    published VS; LDAM       the values of the paper's figures 3 to 5, from experiments/published.csv
    literature ERM; DFR      the values that other papers report, from literature.csv
    commands                 every command of the command line
    config                   every key of a config
    docstring module:name    a docstring
    api module: name, name   these functions and classes of a module with their docstrings; all of them if none is named
    names                    the sections of a config that name a function, with these names
    calls loss               the functions and classes that a section of a config can name, with a line each
    modules                  every folder of the package, with a line for each of its files
"""

import argparse
import ast
import csv
import functools
import importlib
import inspect
import itertools
import re
import runpy
import sys
import textwrap
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from imbalance.cli import main as cli  # noqa: E402
from imbalance.cli.commands import COMMANDS  # noqa: E402
from imbalance.config import experiment  # noqa: E402
from imbalance.config.files import CONFIGS  # noqa: E402
from imbalance.config.registries import registries  # noqa: E402
from imbalance.config.resolve import load  # noqa: E402
from imbalance.config.schema import Section, describe_annotation, keyword_annotations, look_up, shared_keys  # noqa: E402
from imbalance.experiments.colored_digits_methods import METHODS, UNTUNED  # noqa: E402
from imbalance.models import COSINE  # noqa: E402

SECTIONS = {
    "data": "the data set and its splits",
    "groups": "the groups that the methods use: those of the data set, or groups that a first training run infers",
    "sampler": "the examples that an epoch draws",
    "weights": "the weight of each example",
    "mix": "the mixing of examples",
    "loss": "the loss of one example",
    "objective": "the losses of a batch, reduced to one scalar",
    "model": "the network; each name also exists with `_cosine` at its end, for a normalised last layer",
    "adapter": "small changes that are trained in place of the network's weights",
    "head": "the replacement of the last layer after training",
    "optim.schedule": "the schedule of the learning rate",
    "optim": "the optimiser",
}


# Docstrings as Markdown


def escaped(text: str) -> str:
    """Escape characters that Markdown would read as markup, except within backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_|<\[\]$^~#{}])", r"\\\1", part) for part in parts)


def docstring_of(thing: Callable) -> str:
    while isinstance(thing, functools.partial):
        thing = thing.func
    return inspect.cleandoc(thing.__doc__ or "")


def arguments_in(docstring: str) -> dict[str, str]:
    """Return the meaning of each argument, by name, from the section `Args` of a docstring."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)*)", docstring, re.M)
    items = re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(text.split()) for names, text in items for name in names.split(", ")}


def bullets(items: list[tuple[str, str]]) -> str:
    """Return a list in Markdown of pairs (names with commas between them, meaning)."""
    return "\n".join(
        f"- `{'`, `'.join(names.split(', '))}`: {escaped(' '.join(text.split()))}" for names, text in items
    )


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown, with a list for each of the sections `Args`, `Returns` and `Raises`."""
    head, *sections = re.split(r"^(Args|Raises|Returns):\n", inspect.cleandoc(docstring), flags=re.M)
    parts = []
    attribute = r"^[a-z_]\w*(?:, \w+)*: \S.*\n?(?:^ {4}\S.*\n?)*"
    for block in re.findall(rf"(?:{attribute})+|(?:^ {{4}}.*\n?|^\n)+|(?:^(?! {{4}}).+\n?)+", head, re.M):
        block = block.strip("\n")
        if re.match(attribute, block, re.M):
            items = re.findall(r"^(\S[^:]*): (.*(?:\n {4}.*)*)", block, re.M)
            parts.append(bullets(items))
        elif block.startswith("    "):
            code = textwrap.dedent(block).strip()
            parts.append(f"```{'sh' if re.match('imbalance |pip |python ', code) else 'text'}\n{code}\n```")
        elif block.strip():
            parts.append(escaped(block.strip()))
    for title, body in zip(sections[::2], sections[1::2]):
        items = re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", body, re.M) if title != "Returns" else []
        if items:
            parts.append(f"{'Arguments' if title == 'Args' else title}:\n\n{bullets(items)}")
        else:
            parts.append(f"{title}: {escaped(' '.join(body.split()))}")
    return "\n\n".join(parts) + "\n"


def table(heads: str, rows: list[str]) -> str:
    return "\n".join([heads, "|---" * (heads.count("|") - 1) + "|", *rows]) + "\n" if rows else ""


# Configs


@functools.cache
def examples() -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    """Return, for each (section, name), a file in which it is used, and the values of the section there.

    The file is the first config that uses it, or else the file of an experiment. Config files that are not in the table
    of tools/config_table.py are left out, so that a user's own file does not change the documentation.
    """
    names = runpy.run_path(str(HERE.parent / "tools" / "config_table.py"))["ROWS"]
    settings = [(f"configs/{name}.py", load(CONFIGS / f"{name}.py")) for name in sorted(names)]
    for variant in (*(variant for _, variant, _ in METHODS), *UNTUNED.values()):
        settings.append(("experiments/colored_digits_methods.py", variant.run({}, 0, "runs").config))
    sections_by_entry: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for file, setting in settings:
        sections = setting.to_dict()
        sections["optim.schedule"] = sections["optim"].pop("schedule")
        for path in registries():
            sections_by_entry.setdefault((path, sections[path]["name"]), (file, sections[path]))
    return sections_by_entry


def call_and_keys(path: str, name: str) -> str:
    """Return the line of a config that names an entry, and a list of the entry's keys with their meanings."""
    function = look_up(registries()[path], name)
    file, section = examples().get((path, name), ("", {}))
    pairs = [f"{key}={literal(section[key]) if file else '...'}" for key in keyword_annotations(function)]
    call = f"config.{path} = create({', '.join([f'name={literal(name)}', *pairs])})"
    if len(call) > 100:
        call = (
            f"config.{path} = create(\n    name={literal(name)},\n" + "".join(f"    {pair},\n" for pair in pairs) + ")"
        )
    note = f"# {file}\n" if file and pairs else ""
    meanings = arguments_in(docstring_of(function))
    for key, meaning in arguments_in(docstring_of(shared_keys(function) or object)).items():
        more = meanings.get(key, "")  # what the function adds to the meaning that all its siblings share
        meanings[key] = f"{meaning} {more[:1].upper()}{more[1:]}".strip()
    rows = [row(key, value, meanings.get(key, "")) for key, value in keyword_annotations(function).items()]
    return f"```python\n{note}{call}\n```\n\n" + table("| key | value | meaning |", rows)


def literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{\n" + "".join(f"        {literal(key)}: {literal(item)},\n" for key, item in value.items()) + "    }"
    return repr(value).replace("'", '"') if '"' not in repr(value) else repr(value)


def row(key: str, annotation: Any, meaning: str) -> str:
    is_section = annotation is Section or is_dataclass(annotation)
    values = "a section" if is_section else re.sub(r"'([^']*)'", r'`"\1"`', describe_annotation(annotation))
    return f"| `{key}` | {escaped(values)} | {escaped(meaning)} |"


def an_entry(argument: str, page: Path) -> str:
    path, _, name = argument.rpartition(".")
    return f"Section `config.{path}`, {SECTIONS[path]}:\n\n{call_and_keys(path, name)}"


@functools.cache
def method_pages() -> dict[str, str]:
    """Return the name of the page that describes each entry, such as `loss.poly`."""
    pages = sorted((HERE / "methods").glob("*.md"))
    return {name: page.name for page in pages for name in re.findall(r"<!-- generated: entry (\S+) -->", page.read_text(encoding="utf-8"))}  # fmt: skip


def typed(section: Any) -> str:
    """Return a table of the keys of a section's dataclass, with types and meanings."""
    meanings = arguments_in(docstring_of(section))
    about = markdown(docstring_of(section).partition("\nArgs:")[0])
    rows = [row(key, hint, meanings.get(key, "")) for key, hint in get_type_hints(section, include_extras=True).items()]
    return f"{about}\n{table('| key | value | meaning |', rows)}"


def the_config(argument: str, page: Path) -> str:
    parts = ["## Top level\n", typed(experiment.Experiment)]
    for name, section in (
        ("trainer", experiment.Trainer),
        ("callbacks", experiment.Callbacks),
        ("logger", experiment.Logger),
    ):
        parts += [f"## {name}\n", typed(section)]
    for path, entries in registries().items():
        parts += [f"## {path}\n", f"{SECTIONS[path].capitalize()}.\n"]
        docstrings = {
            name: docstring_of(look_up(entries, name)) for name in entries if path != "model" or name not in COSINE
        }
        for docstring, alike in itertools.groupby(docstrings, docstrings.get):
            first, *others = alike
            summary = escaped(docstring.partition("\n\n")[0])
            told = method_pages().get(f"{path}.{first}")
            link = f" More: [{told.removesuffix('.md')}](../methods/{told})." if told else ""
            parts += [f"### {path}: {', '.join([first, *others])}\n", f"{summary}{link}\n", call_and_keys(path, first)]
    return "\n".join(parts)


# Tables


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def names_in(argument: str) -> list[str]:
    return [name.strip() for name in argument.split(";")]


def facts(argument: str, page: Path) -> str:
    lines = (HERE / "methods" / "index.md").read_text(encoding="utf-8").splitlines()
    rows = [re.sub(r"\[([^\]]*)\]\([\w-]+\.md\)", r"\1", line) for line in lines if f"]({page.name})" in line]
    return table("| method | paper | in a config | labels it reads |", rows)


def numbers(argument: str, page: Path) -> str:
    """Return the rows of results.md whose first cell is one of these names, below the command that makes their table.

    A table is left out if another table has rows for the same names and for further ones.
    """
    tables, command = [], ""
    lines = (HERE / "results.md").read_text(encoding="utf-8").splitlines()
    for at, line in enumerate(lines):
        if line.startswith("imbalance "):
            command = line
        if line.startswith("|---"):
            body = itertools.takewhile(lambda line: line.startswith("|"), lines[at + 1 :])
            rows = [line for line in body if cells(line)[0] in names_in(argument)]
            tables.append(({cells(row)[0] for row in rows}, f"```sh\n{command}\n```\n\n{table(lines[at - 1], rows)}\n"))
    kept = [text for names, text in tables if len(names) > 1 and not any(names < others for others, _ in tables)]
    return "".join(kept) and "".join(kept) + "[Results](../results.md) has the whole tables.\n"


def published(argument: str, page: Path) -> str:
    titles = {"figure3": "last epoch", "figure4": "early-stopped", "figure5": "last epoch"}
    lines = []
    with (HERE.parent / "experiments" / "published.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            figure, _, data = line["source"].partition(" ")
            if line["name"] in names_in(argument) and figure in titles:
                n = f" (n = {line['n']})" if line["n"] else ""
                value = f"{line['value']} ± {line['standard_deviation']}{n}"
                lines.append(f"| {line['name']} | {figure}, {data}, {titles[figure]} | {value} |")
    return table("| Wang et al., row | data | test accuracy, published |", lines)


def literature(argument: str, page: Path) -> str:
    """Return a table of the published values of all names, on the data sets for which the last name has a value."""
    names = names_in(argument)
    with (HERE / "literature.csv").open(encoding="utf-8") as file:
        values = list(csv.DictReader(file))
    data = {value["data"] for value in values if value["name"] == names[-1]}
    rows = [f"| {value['name']} | {value['data']} | {value['value']} | {value['source']} | not measured |"
            for value in values if value["name"] in names and value["data"] in data]  # fmt: skip
    return table("| method | data | test accuracy, %, published | in | here |", rows)


# The command line and the API


def commands(argument: str, page: Path) -> str:
    parts = []
    for name, command in COMMANDS.items():
        if command.hidden:
            continue
        rows = []
        for action in cli.parser_of(name)._actions:
            flag = " ".join(filter(None, [*action.option_strings[:1], action.metavar])) or action.dest
            choices = f"; one of {', '.join(action.choices)}" if action.choices else ""
            required = " (required)" if action.required else ""
            rows.append(f"| `{flag}` | {escaped((action.help or '') + choices)}{required} |")
        if command.overrides:
            rows.append("| `--config.<key>=<value>` | override a key of the config; can be given many times |")
        about = markdown(cli.module_docstring(command) or command.about)
        parts += [f"## imbalance {name}\n", about, table("| flag | meaning |", rows)]
    return "\n".join(filter(None, parts))


def docstring(argument: str, page: Path) -> str:
    module, _, name = argument.partition(":")
    return markdown(getattr(importlib.import_module(module), name).__doc__)


def api(argument: str, page: Path) -> str:
    module, _, names = argument.partition(": ")
    things = vars(importlib.import_module(module))
    public = [name for name, thing in things.items() if getattr(thing, "__module__", "") == module and name[0] != "_"]
    return "\n".join(described(things[name], f"{module}.{name}") for name in (names.split(", ") if names else public))


def calls(argument: str, page: Path) -> str:
    rows = []
    for name, thing in registries()[argument].items():
        thing = inspect.unwrap(thing)
        summary = " ".join(docstring_of(thing).partition("\n\n")[0].split())
        call = " ".join(signature(thing, f"{thing.__module__}.{thing.__name__}").split())
        rows.append(f"| `{name}` | `{call.replace('|', 'or')}` | {escaped(summary)} |")
    return table("| name in a config | call | meaning |", rows)


def modules(argument: str, page: Path) -> str:
    """Return the folders of the package and of experiments/, with the first line of the docstring of each file."""

    def first_line(file: Path) -> str:
        return escaped((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0])

    parts, root = [], HERE.parent
    package = [
        file.parent for file in sorted((root / "imbalance").rglob("__init__.py")) if file.parent.name != "imbalance"
    ]
    for folder in [*(folder for folder in package if not folder.is_symlink()), root / "experiments"]:
        rows = [
            f"| `{file.name}` | {first_line(file)} |"
            for file in sorted(folder.glob("*.py"))
            if file.name != "__init__.py"
        ]
        title = f"## {folder.relative_to(root)}/\n\n{first_line(folder / '__init__.py')}\n"
        parts += [title, table("| file | purpose |", rows)]
    return "\n".join(filter(None, parts))


def described(thing: Any, path: str) -> str:
    """Return the description of a function or class: signature, docstring, and for a class its public methods."""
    text = f"### {path.rpartition('.')[2]}\n\n```python\n{signature(thing, path)}\n```\n\n{markdown(thing.__doc__)}"
    methods = vars(thing).items() if inspect.isclass(thing) else ()
    lines = [f"- `{signature(method, key)}`: {escaped(' '.join(method.__doc__.split(chr(10) * 2)[0].split()))}" for key, method in methods
             if inspect.isfunction(method) and not key.startswith("_") and key != "forward" and method.__doc__]  # fmt: skip
    return text + ("\nMethods:\n\n" + "\n".join(lines) + "\n" if lines else "")


def signature(thing: Any, path: str) -> str:
    """Return the signature of a function or class, with annotations as they are written in the source."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        names = getattr(thing, "_fields", getattr(thing, "__dataclass_fields__", ()))
        return path + (f"({', '.join(names)})" if names else "")
    function = inspect.unwrap(thing.__init__ if inspect.isclass(thing) else thing)
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError:  # a dataclass generates its __init__, which has no source
        arguments = ", ".join(inspect.signature(thing).parameters)
        # The formatter also checks the code in pages: over 120 characters it breaks a call, and then its arguments.
        if len(f"{path}({arguments})") <= 120:
            return f"{path}({arguments})"
        one_line = len(f"    {arguments}") <= 120
        return (
            f"{path}(\n    {arguments}\n)"
            if one_line
            else f"{path}(\n    " + arguments.replace(", ", ",\n    ") + ",\n)"
        )
    arguments = ast.unparse(ast.parse(source).body[0].args)
    call = f"{path}({re.sub('^self(, )?', '', arguments)})"
    return "\n".join(textwrap.wrap(call, 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


NAMED_ELSEWHERE = {  # sections with dozens of names: where to find these
    "data": "see [Data](data.md)",
    "loss": "see [Methods](../methods/index.md)",
    "model": "`imbalance list models`",
}


def names(_: str, page: Path) -> str:
    """Return the table of config sections with the names that each can have."""
    rows = [
        f"| `{section}` | {SECTIONS[section]} | {NAMED_ELSEWHERE.get(section) or ', '.join(entries)} |"
        for section, entries in registries().items()
    ]
    return table("| section | meaning | names |", rows)


# Pages

KINDS: dict[str, Callable[[str, Path], str]] = {
    "entry": an_entry,
    "facts": facts,
    "numbers": numbers,
    "published": published,
    "literature": literature,
    "commands": commands,
    "config": the_config,
    "docstring": docstring,
    "api": api,
    "calls": calls,
    "names": names,
    "modules": modules,
}
BEGIN = re.compile(r"^<!-- generated: (\w+) ?(.*) -->\n", re.M)
PART = re.compile(BEGIN.pattern + r"(?:(?!<!-- generated:)(?:.*\n))*?<!-- end -->$", re.M)


def rewritten(page: Path) -> str:
    """Return the text of a page with every generated part as it should be."""
    text = page.read_text(encoding="utf-8")
    if len(BEGIN.findall(text)) != len(PART.findall(text)):
        raise SystemExit(
            f"{page.relative_to(HERE.parent)}: a '<!-- generated: … -->' has no '<!-- end -->' after it; add it"
        )

    def part(match: re.Match) -> str:
        made = KINDS[match[1]](match[2], page).strip()
        if not made:
            raise SystemExit(
                f"{page.relative_to(HERE.parent)}: nothing is found for '{match[1]} {match[2]}'; mend the name, or remove the part"
            )
        return f"<!-- generated: {f'{match[1]} {match[2]}'.strip()} -->\n\n{made}\n\n<!-- end -->"

    return PART.sub(part, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="name every page that is out of date, and change nothing")
    check = parser.parse_args().check
    built = {"_build", "_examples", "gallery"}
    pages = [page for page in sorted(HERE.rglob("*.md")) if not built & set(page.relative_to(HERE).parts)]
    stale = {page: text for page in pages if (text := rewritten(page)) != page.read_text(encoding="utf-8")}
    for page, text in stale.items():
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"docs/{page.relative_to(HERE)}: " + ("out of date; run: python docs/write.py" if check else "rewritten"))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
