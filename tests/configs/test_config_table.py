"""The files of configs/ are those of the table, and files that a user puts beside them change no test."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONFIG_FILES, ROOT, TABLE

from imbalance.config.experiment import validate
from imbalance.config.files import config_file, config_files_by_name
from imbalance.config.override_flags import split_overrides
from imbalance.config.renamed import RENAMED
from imbalance.config.resolve import load, resolve
from imbalance.errors import BadInput
from imbalance.report.kept_results import current_name

ROWS, BASES, DEFAULTS = TABLE["ROWS"], TABLE["BASES"], TABLE["DEFAULTS"]


def write_configs(root: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(root / "tools" / "write_configs.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True)


def copy_of(folder: Path, *names: str) -> Path:
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_files_are_as_the_table_writes_them():
    done = write_configs(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    # Each data set has a file; what differs in few values belongs into an experiment, so the further files are few.
    further = len(ROWS) - len({row.base for row in ROWS.values()})
    assert 60 < further <= 100


def test_a_stale_and_a_missing_file_are_named_and_written(tmp_path):
    copy = copy_of(tmp_path, "configs", "tools")
    (copy / "configs" / "digits_ce.py").write_text("edited")
    (copy / "configs" / "digits_erm.py").unlink()
    (copy / "configs" / "mine.py").write_text("mine")
    checked = write_configs(copy, "--check")
    assert checked.returncode == 1 and (copy / "configs" / "digits_ce.py").read_text() == "edited"
    assert {f"stale: configs/digits_{name}.py" for name in ("ce", "erm")} < set(checked.stdout.splitlines())
    assert write_configs(copy).stdout.count("written: ") == 2
    assert write_configs(copy, "--check").returncode == 0 and (copy / "configs" / "mine.py").read_text() == "mine"
    for name in ("ce", "erm"):
        assert (copy / "configs" / f"digits_{name}.py").read_bytes() == CONFIG_FILES[f"digits_{name}"].read_bytes()


def test_a_key_is_added_to_every_file_by_one_line(tmp_path):
    copy = copy_of(tmp_path, "configs", "tools")
    program = copy / "tools" / "write_configs.py"
    line = "        deterministic=False,"
    program.write_text(program.read_text().replace(line, f"        made_up=0.0,  # of a made-up key\n{line}"))
    assert write_configs(copy).stdout.count("written: ") == len(ROWS)
    assert {load(copy / "configs" / f"{name}.py").trainer.made_up for name in ROWS} == {0.0}


@pytest.mark.parametrize("slot", ["wieghts", "data.sizes"])
def test_a_slot_that_the_template_lacks_is_refused(tmp_path, slot):
    copy = copy_of(tmp_path, "configs", "tools")
    table = copy / "tools" / "config_table.py"
    text = table.read_text()
    table.write_text(f'{text}ROWS["digits_x"] = Row("digits", "x", "", {{"{slot}": "1,"}})\n')
    done = write_configs(copy, "--check")
    assert done.returncode == 1 and f"digits_x: slot {slot!r} is not in TEMPLATE; use one of " in done.stderr


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_only_what_its_base_does_not(name):
    """A slot that repeats the base's value would stay behind when the base changes."""
    row = ROWS[name]
    assert row.base in BASES, f"{name}: no base {row.base!r}; add it to BASES in tools/config_table.py"
    assert name.startswith(f"{row.base.removesuffix('_whole')}_"), f"{name}: begin its name with that of its base"
    before = {**DEFAULTS, **BASES[row.base].slots}
    repeated = [slot for slot, value in row.slots.items() if before.get(slot) == value]
    assert not repeated, f"{name}: remove {repeated}, which the base {row.base!r} says already"


def test_what_all_configs_share_has_one_comment_everywhere():
    """Of the sections below the methods, whose keys do not depend on the data set."""
    comments: dict[str, set[str]] = {}
    for path in CONFIG_FILES.values():
        for line in path.read_text().partition("config.trainer = create(")[2].splitlines():
            if "batch_size=" not in line:
                comments.setdefault(line.partition("  # ")[0], set()).add(line)
    assert {line: variants for line, variants in comments.items() if len(variants) > 1} == {}


STRANGERS = {
    "mine.py": (ROOT / "configs" / "digits_ce.py").read_text().replace("batch_size=512", "batch_size=7"),
    "broken.py": "def get_config(:\n",
    "colored_digits_of_mine.py": '"""90.0 ± 1.0 % reported"""\nraise RuntimeError\n',
    "latin1.py": "é".encode("latin-1"),
    "cifar_dro.py": (ROOT / "configs" / "digits_ce.py").read_text(),  # the name of a config of older versions
    "mine/digits_ce.py": (ROOT / "configs" / "digits_poly.py").read_text(),  # the shipped digits_ce has precedence
}
TESTED = ("test_config", "test_config_table", "test_config_published", "test_configs", "test_cli")


def test_the_files_of_a_user_fail_nothing(tmp_path):
    copy = copy_of(tmp_path, "configs", "tools", "tests")
    for name, content in STRANGERS.items():
        (copy / "configs" / name).parent.mkdir(exist_ok=True)
        (copy / "configs" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("imbalance", "experiments", "docs", "main.py", "pyproject.toml"):
        (copy / name).symlink_to(ROOT / name)
    files = sorted(str(path) for path in (copy / "tests").rglob("test_*.py") if path.stem in TESTED)
    assert len(files) == len(TESTED)
    kept = "self_contained or can_be_overridden or table or row or comment or published or three or both or lists"
    others = " or ".join(name for name in ROWS if name != "digits_ce")  # whose tests see no other file than their own
    chosen = f"({kept}) and not fail_nothing and not ({others})"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *files]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 40


def test_a_file_in_a_folder_of_configs_replaces_no_file_above_it(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in ("one.py", "a/one.py", "a/two.py"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr("imbalance.config.files.CONFIGS", tmp_path)
    assert config_files_by_name() == {"one": tmp_path / "one.py", "two": tmp_path / "a" / "two.py"}


def test_the_names_of_removed_configs_are_answered_with_the_command():
    assert not RENAMED.keys() & ROWS.keys()
    for name in RENAMED.keys() - config_files_by_name().keys():  # a user may add a file of an old name
        with pytest.raises(BadInput, match=rf"config: {name} is no config any more; use ") as raised:
            config_file(name)
        config, *values = re.search(r"; use (.*)$", str(raised.value))[1].replace(" with", "").split()
        assert config in ROWS
        resolved, directory = resolve(config, split_overrides([f"--{value}" for value in values])[0])
        assert resolved.to_dict() != validate(load(config_file(config))).to_dict()
        assert current_name(name, "default") == (config, directory.parent.name)
    with pytest.raises(BadInput, match="use celeba_poly with config.trainer.epochs=100 config.weights.exponent=2$"):
        config_file("configs/celeba_poly_exponent2.py")


def test_a_user_s_own_file_may_have_the_name_of_a_removed_config(tmp_path):
    path = tmp_path / "cifar_dro.py"
    path.write_bytes(CONFIG_FILES["digits_ce"].read_bytes())
    assert config_file(path) == path


@pytest.mark.parametrize(
    ("name", "overrides", "config", "now"),
    [
        ("digits_ce", "optim.lr=0.1", "digits_ce", "optim.lr=0.1"),
        ("cifar_poly_exponent15", "default", "cifar_poly", "optim.lr=0.008,optim.momentum=0.0,weights.exponent=1.5"),
        ("cifar_pair_lenet_ce", "optim.lr=0.1,trainer.batch_size=64", "cifar_pair_ce",
         "model.name=lenet,optim.lr=0.1,trainer.batch_size=64"),
        # The old file's rate was overridden by that of the config that stays.
        ("colored_digits_focal", "optim.lr=0.1", "colored_digits_erm", "loss.gamma=2.0,loss.name=focal"),
        ("digits_pair_erm", "data.classes=9+5", "digits_pair_ce", "data.classes=9+5,weights.name=uniform"),
    ],
)  # fmt: skip
def test_runs_of_removed_configs_have_the_names_of_today(name, overrides, config, now):
    assert current_name(name, overrides) == (config, now)
