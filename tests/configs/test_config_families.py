"""Configs repeat one another by design: each is a whole file. What is not meant to differ within a family is held equal."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

# No file is meant to be like these: a network of its own size, for images of any kind; all of CelebA, not 2 %.
ALONE = ("table_small", "celeba_dpe")
FILES = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.stem not in ALONE)
# The families, by the prefix that names the data set, and in what their files may differ: a key, or a whole section.
METHOD = {"weights", "loss"}
BY_GROUP = {"score", "callbacks.monitor"}  # of the data, or of those that were inferred
FAMILIES = {
    "arrays": METHOD | {"objective", "sampler"},
    "celeba": METHOD | {"sampler", "objective", "optim", "trainer.epochs", "callbacks.select"},
    "cifar": METHOD | {"sampler", "objective", "optim", "trainer.epochs", "callbacks.select"},
    "cifar_pair": {"loss", "model"},
    "cifar_pair_features": {"loss"},
    "cifar10": {"data"},
    "cifar10lt": METHOD | {"mix", "model"},
    "cifar100lt": METHOD,
    "colored_digits": METHOD | {"groups", "sampler", "mix", "objective", "model", "optim", "head"} | BY_GROUP,
    "digits": METHOD | {"optim"},
    "digits_pair": METHOD,
    "fashion": METHOD,
    "fashion_pair": METHOD | {"model"},
    "features": METHOD | {"sampler", "objective", "head", "trainer.epochs"},
    "folder": METHOD,
    "gaussian": METHOD,
    "medmnist": METHOD,
    "table": METHOD,
    "civilcomments": METHOD | {"sampler", "objective"},
    "multinli": METHOD | {"sampler", "objective"},
    "text_small": METHOD | {"sampler", "objective", "optim", "head"},
    "waterbirds": METHOD | BY_GROUP | {"groups", "sampler", "mix", "objective", "model", "optim", "head", "data.augment", "trainer.epochs",
                            "trainer.batch_size", "callbacks.select"},
}  # fmt: skip


def family(path: Path) -> str:
    """The longest prefix that fits: colored_digits_erm is not one of the digits."""
    return max((name for name in FAMILIES if path.stem.startswith(f"{name}_")), key=len)


def lines_of(path: Path) -> list[tuple[str, str]]:
    """Each line of a config below its docstring, with the key that it sets ("" for none)."""
    section, found = "", []
    for line in path.read_text().split('"""', 2)[2].splitlines():
        if match := re.match(r"    config\.([\w.]+) = ", line):
            section = match[1]
            found.append((section, line))
        elif match := re.match(r"        (\w+)=", line):
            found.append((f"{section}.{match[1]}", line))
        elif line == "    )":  # the end of a section
            found.append((section, line))
        elif line.startswith("     "):  # inside a value of several lines
            found.append((f"{section}.…", line))
        else:
            found.append(("", line))
    return found


def may_differ(key: str, allowed: set[str]) -> bool:
    return key in allowed or key.partition(".")[0] in allowed


def test_every_config_is_of_a_family_and_every_family_has_several():
    members = [family(path) for path in FILES]
    assert all(members.count(name) >= 2 for name in FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_differs_only_where_it_is_meant_to(name):
    """Lines and their order, comments included. A value that several files have has one comment in all of them."""
    first, *others = (lines_of(path) for path in FILES if family(path) == name)
    allowed = FAMILIES[name]
    fixed = [line for key, line in first if not may_differ(key, allowed)]
    comments: dict[str, set[str]] = {}
    for lines in (first, *others):
        assert [line for key, line in lines if not may_differ(key, allowed)] == fixed
        for _, line in lines:
            comments.setdefault(line.partition("  # ")[0], set()).add(line)
    assert [variants for variants in comments.values() if len(variants) > 1] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_may_differ_that_does_not(name):
    """An exception that no file needs any more is one that hides the next drift."""
    members = [lines_of(path) for path in FILES if family(path) == name]
    for key in FAMILIES[name]:
        values = {tuple(line for k, line in lines if k == key or k.startswith(f"{key}.")) for lines in members}
        assert len(values) > 1, key


def test_what_all_configs_share_has_one_comment_everywhere():
    """Of trainer, callbacks and logger, whose keys do not depend on the data set."""
    comments: dict[str, set[str]] = {}
    for path in FILES:
        for key, line in lines_of(path):
            if key.startswith(("trainer.", "callbacks.", "logger")):
                comments.setdefault(line.partition("  # ")[0], set()).add(line)
    assert {line: variants for line, variants in comments.items() if len(variants) > 1} == {}
