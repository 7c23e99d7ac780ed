"""Tests of the documentation that need no site: commands, sessions, generated parts, links, formulas and spelling."""

import doctest
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.pages import BUILT, FENCE, PAGES, ROOT, blocks, page

from imbalance.cli.main import arguments_of, command_of
from imbalance.config.experiment import validate
from imbalance.config.override_flags import OverrideText
from imbalance.config.registries import registries
from imbalance.config.resolve import config_file, load, override

NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


# Commands


CALL = re.compile(
    r"(?:^|&& |^torchrun .*|^accelerate launch .*)(imbalance|(?:python )?main\.py) (.*?)(?: && .*| \| .*|\s+# .*)?$"
)


LOOP = re.compile(r"for (\w+) in (\S+)[^\n]*; do\n(.*?)\n *done", re.S)


def commands(text: str) -> list[list[str]]:
    """Find every call of `imbalance` or main.py: in blocks of shell, in indented blocks, and in a line if it has a flag."""
    found = blocks(text, "sh") + re.findall(r"(?:^    .*\n)+", FENCE.sub("", text), re.M)
    # Its first round
    found = [LOOP.sub(lambda loop: loop[3].replace(f"${loop[1]}", loop[2]), block) for block in found]
    lines = [line.strip() for block in found for line in re.sub(r" *\\\n *", " ", block).splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`(imbalance [^`<]* --[^`<]*)`", FENCE.sub("", text))]
    calls = [CALL.search(line) for line in lines if "…" not in line and not line.startswith("main.py")]
    return [([] if call[1] == "imbalance" else ["train"]) + shlex.split(call[2]) for call in calls if call]


CALLS = [(str(path.relative_to(ROOT)), call) for path in PAGES for call in commands(path.read_text(encoding="utf-8"))]


def test_there_are_commands_to_check():
    assert len(CALLS) > 40 and {call[0] for _, call in CALLS} >= {"train", "data", "compare", "report", "predict"}


@pytest.mark.parametrize("call", sorted({tuple(call) for _, call in CALLS}), ids=" ".join)
def test_the_command_line_takes_it(call):
    """Check that every flag exists, and that every config with its overrides passes the check before a run."""
    if "--help" in call:
        return
    name, rest = command_of(call)
    arguments = arguments_of(name, rest)
    given = arguments.get("config") or []
    for config in [given] if isinstance(given, str) else given:
        if config.startswith("runs/"):  # a run that the reader has made
            continue
        if any(value.startswith("my_") for value in arguments.get("overrides", {}).values()):
            continue  # a file that the page has: test_docs_run.py writes it and runs this
        file = ROOT / config if config.endswith(".py") else config
        first_values = dict(axis.split(",")[0].split("=", 1) for axis in arguments.get("grid", []) if "=" in axis)
        axes = {key: OverrideText(value) for key, value in first_values.items()}
        validate(override(load(config_file(file)), {**axes, **arguments.get("overrides", {})}))


# Programs

SESSIONS = [
    (name, at) for name, path in zip(NAMES, PAGES) for at, block in enumerate(blocks(path.read_text(encoding="utf-8"), "python"))
    if block.startswith(">>>")
]  # fmt: skip


@pytest.mark.parametrize(("name", "at"), SESSIONS)
def test_a_session_prints_what_the_page_says(name, at):
    session = blocks((ROOT / name).read_text(encoding="utf-8"), "python")[at]
    test = doctest.DocTestParser().get_doctest(session, {}, name, name, 0)
    assert test.examples
    told = []
    assert not doctest.DocTestRunner().run(test, out=told.append).failed, "".join(told)


# Methods


def test_every_method_has_a_page():
    """A new one needs a row in docs/methods/index.md, and on the page that it links to `<!-- generated: entry loss.name -->`."""
    sections = ("groups", "sampler", "weights", "mix", "loss", "objective", "head")
    entries = {f"{section}.{name}" for section in sections for name in registries()[section]}
    page_by_entry = {}
    for path in sorted((ROOT / "docs" / "methods").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^<!-- generated: entry (\S+) -->$", text, re.M):
            assert page_by_entry.setdefault(name, path.name) == path.name
        assert path.stem == "index" or f"]({path.name})" in page("methods/index.md"), path.name
    optimisers = {f"optim.{name}" for name in registries()["optim"]}  # only those that are methods have a page
    missing, unknown = sorted(entries - page_by_entry.keys()), sorted(page_by_entry.keys() - entries - optimisers)
    assert not missing, f"write a page in docs/methods/ with the line <!-- generated: entry … --> for each of {missing}"
    assert not unknown, f"delete the line <!-- generated: entry … --> of {unknown} in docs/methods/, which no table has"


PARTS = (
    "<!-- generated: facts -->",
    "## When it fails",
    "## Formula and config",
    "## Measured results",
    "## In your own training loop",
)


@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.parent.name == "methods" and p.stem != "index"], ids=lambda p: p.stem
)
def test_a_methods_page_has_its_parts_in_order(path):
    """Check the order of the parts, that results are there or said to be missing, and that a session is run."""
    text = path.read_text(encoding="utf-8")
    places = [text.find(f"\n{part}\n") for part in PARTS]
    assert -1 not in places and places == sorted(places), dict(zip(PARTS, places))
    reached, _, own = text.partition(PARTS[3])[2].partition(PARTS[4])
    assert re.search(r"<!-- generated: (numbers|published|literature) |have\s+not\s+measured", reached)
    assert any(session.startswith(">>>") for session in blocks(own, "python"))


# How it compares


def test_every_cell_answers_and_names_something_that_exists_here():
    header, _, *rows = [
        line.strip("|").split("|") for line in page("how-it-compares.md").splitlines() if line.startswith("|")
    ]
    assert len(rows) == 16 and {len(row) for row in rows} == {len(header)} == {7}
    assert all(re.match(r" (yes|partly|no)\b", cell) for row in rows for cell in row[1:])
    own = " ".join(row[1] for row in rows)
    names = re.findall(r"`(imbalance\.[\w.]+)`", own)
    assert len(names) > 5 and all(pkgutil.resolve_name(name) for name in names)
    entries = re.findall(r'`(\w+)\.name="(\w+)"`', own)
    assert len(entries) > 5 and all(entry in registries()[section] for section, entry in entries)


# Generated parts


def write(root: Path, *flags: str) -> int:
    """Run docs/write.py of a copy of the repository in this process, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["write.py", *flags])
        patch.setattr(sys, "path", sys.path.copy())
        return runpy.run_path(str(root / "docs" / "write.py"))["main"]()


def test_generated_parts_are_up_to_date(capsys):
    assert write(ROOT, "--check") == 0, capsys.readouterr().out


def test_only_a_paragraph_that_begins_with_a_name_is_a_list_of_attributes():
    markdown = runpy.run_path(str(ROOT / "docs" / "write.py"))["markdown"]
    docstring = """First line.

    Prose that is told the
    shares: a colon in a line of prose.

    columns: the names
        on two lines.
    a, b: two more.

        imbalance train
    """
    assert markdown(docstring).rstrip() == (
        "First line.\n\nProse that is told the\nshares: a colon in a line of prose.\n\n"
        "- `columns`: the names on two lines.\n- `a`, `b`: two more.\n\n```sh\nimbalance train\n```"
    )


def test_a_stale_page_is_named_and_written_again(tmp_path, capsys):
    unneeded = ("reference", "concepts", "how-to", "preregistered", "images")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns(*BUILT, *unneeded))
    for name in ("experiments", "imbalance", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    file = tmp_path / "docs" / "methods" / "poly.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("| `alpha` |", "| `exponent` |"), encoding="utf-8")
    assert write(tmp_path, "--check") == 1
    assert capsys.readouterr().out == "docs/methods/poly.md: out of date; run: python docs/write.py\n"
    assert write(tmp_path) == 0
    assert file.read_text(encoding="utf-8") == text


def test_the_reference_gives_every_key_a_meaning():
    """A key without one needs a comment in its class of settings, or a line under `Args` in the docstring of its entry."""
    rows = re.findall(r"^\| `(.*?)` \| .*? \|(.*)\|$", page("reference/config.md"), re.M)
    assert len(rows) > 200
    assert not [key for key, meaning in rows if len(meaning.strip()) < 3]


# Links

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.M)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub and MyST make of the headings of a page."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    """Files and headings of this repository must be there; of other sites only the form is checked, without a network."""
    text = FENCE.sub("", (ROOT / name).read_text(encoding="utf-8"))
    for target in (first or second for first, second in LINK.findall(text)):
        if re.match(r"[a-z]+:", target):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/[\w./#?=&%~+-]*)?", target), target
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path), f"{name}: {target}; the page has {sorted(anchors(path))}"


# Formulas

FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\$)([^$\n]+?)(?<!\\)\$", re.S)


@pytest.mark.parametrize("name", NAMES)
def test_a_formula_is_shown_alike_on_a_web_host_and_on_the_site(name):
    """GitHub drops a backslash before punctuation, and takes `|` in a table for the end of a cell."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", (ROOT / name).read_text(encoding="utf-8")))
    for block, inline in FORMULA.findall(text):
        assert not re.search(r"\\[^a-zA-Z]", block or inline), block or inline
    for line in re.findall(r"^\|.*\|$", text, re.M):
        assert not any("|" in inline for _, inline in FORMULA.findall(line)), line


# Spelling


def test_the_words_are_spelt_rightly():
    """Check the spelling of documentation, docstrings and messages with codespell."""
    pytest.importorskip("codespell_lib", reason="the extra 'docs' is not installed")
    folders = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "imbalance", "experiments", "tools"]
    skip = "--skip=*/_build/*,*/gallery/*,*/vendor/*,*/__pycache__/*,*.csv,*.png"
    words = "--ignore-words-list=nam,strat,fpr,te,nd,mis,ot,sade,lsat"
    call = [sys.executable, "-m", "codespell_lib", "--builtin=clear,rare", skip, words, *folders]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
