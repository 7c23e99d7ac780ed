"""What the documentation prints: commands that the command line takes, programs that say what is printed, links that lead
somewhere, words that are spelt rightly, and a page for every method."""

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import FENCE, PAGES, ROOT, blocks, page

from imbalance.cli.main import arguments_of, command_of
from imbalance.config.experiment import validate
from imbalance.config.registries import registries
from imbalance.config.resolve import config_file, load, override

NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


# Commands


CALL = re.compile(
    r"(?:^|&& |^torchrun .*|^accelerate launch .*)(imbalance|(?:python )?main\.py) (.*?)(?: && .*| \| .*|\s+# .*)?$"
)


LOOP = re.compile(r"for (\w+) in (\S+)[^\n]*; do\n(.*?)\n *done", re.S)


def commands(text: str) -> list[list[str]]:
    """Every call of `imbalance` or main.py in blocks of shell, in the README's indented ones, and, with a flag, in a line."""
    found = blocks(text, "sh") + re.findall(r"(?:^    .*\n)+", FENCE.sub("", text), re.M)
    found = [
        LOOP.sub(lambda loop: loop[3].replace(f"${loop[1]}", loop[2]), block) for block in found
    ]  # its first round
    lines = [line.strip() for block in found for line in re.sub(r" *\\\n *", " ", block).splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`(imbalance [^`<]* --[^`<]*)`", FENCE.sub("", text))]
    calls = [CALL.search(line) for line in lines if "…" not in line and not line.startswith("main.py")]
    return [([] if call[1] == "imbalance" else ["train"]) + shlex.split(call[2]) for call in calls if call]


CALLS = [(str(path.relative_to(ROOT)), call) for path in PAGES for call in commands(path.read_text(encoding="utf-8"))]


def test_there_are_commands_to_check():
    assert len(CALLS) > 40 and {call[0] for _, call in CALLS} >= {"train", "data", "compare", "report", "predict"}


@pytest.mark.parametrize("call", sorted({tuple(call) for _, call in CALLS}), ids=" ".join)
def test_the_command_line_takes_it(call):
    """Every flag is there, and every config with its overrides passes the check that comes before a run."""
    if "--help" in call:
        return
    name, rest = command_of(call)
    arguments = arguments_of(name, rest)
    given = arguments.get("config") or []
    for config in [given] if isinstance(given, str) else given:
        if config.startswith("runs/"):  # of a run that the reader has made
            continue
        if any(value.startswith("my_") for value in arguments.get("overrides", {}).values()):
            continue  # of a file that the page has: test_docs_run.py writes it and runs this
        file = ROOT / config if config.endswith(".py") else config
        validate(override(load(config_file(file)), arguments.get("overrides", {})))


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
    """A new one: a row in docs/methods/index.md that links to a page, and on the page `<!-- entry: loss.its_name -->`."""
    sections = ("groups", "sampler", "weights", "mix", "loss", "objective", "head")
    there = {f"{section}.{name}" for section in sections for name in registries()[section]}
    shown = {}
    for path in sorted((ROOT / "docs" / "methods").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"^<!-- entry: (\S+) -->$", text, re.M):
            assert shown.setdefault(found, path.name) == path.name
        assert path.stem == "index" or f"]({path.name})" in page("methods/index.md"), path.name
    assert shown.keys() == there


PARTS = ("<!-- facts -->", "## When it fails", "## What it computes, and its config", "## What it reached", "## In a loop of your own")  # fmt: skip


@pytest.mark.parametrize(
    "path", [p for p in PAGES if p.parent.name == "methods" and p.stem != "index"], ids=lambda p: p.stem
)
def test_a_methods_page_has_its_parts_in_order(path):
    """Labels and paper; when it fails; formula and config; numbers, or that there are none; a session that is run."""
    text = path.read_text(encoding="utf-8")
    places = [text.find(f"\n{part}\n") for part in PARTS]
    assert -1 not in places and places == sorted(places), dict(zip(PARTS, places))
    reached, _, own = text.partition(PARTS[3])[2].partition(PARTS[4])
    assert re.search(r"<!-- (numbers|published|literature): |not measured here", reached)
    assert any(session.startswith(">>>") for session in blocks(own, "python"))


# Links

LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.M)


def anchors(path: Path) -> set[str]:
    """What GitHub and MyST make of a page's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    """Files and headings of this repository; of other sites the form alone, as tests have no network."""
    text = FENCE.sub("", (ROOT / name).read_text(encoding="utf-8"))
    for target in (first or second for first, second in LINK.findall(text)):
        if re.match(r"[a-z]+:", target):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/[\w./#?=&%~+-]*)?", target), target
            continue
        file, _, anchor = target.partition("#")
        if file.removeprefix("../").startswith("gallery/"):  # which the build makes, and looks at the links to it
            continue
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path), f"{name}: {target}; there are {sorted(anchors(path))}"


# Spelling


def test_the_words_are_spelt_rightly():
    """Of documentation, docstrings and messages, by codespell."""
    pytest.importorskip("codespell_lib", reason="the extra 'docs' is not installed")
    folders = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "imbalance", "experiments", "configs"]
    skip = "--skip=*/_build/*,*/gallery/*,*/vendor/*,*/__pycache__/*,*.csv,*.png"
    words = "--ignore-words-list=nam,strat,fpr,te,nd,mis,ot"
    call = [sys.executable, "-m", "codespell_lib", "--builtin=clear,rare", skip, words, *folders]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
