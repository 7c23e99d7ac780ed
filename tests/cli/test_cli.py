"""One command line: help that is true, mistakes that say what to type instead, and completion."""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from conftest import CONFIG_FILES, ROOT

from imbalance.cli import completion, listing
from imbalance.cli import main as main_module
from imbalance.cli.commands import COMMANDS
from imbalance.cli.flag_types import non_negative_integer
from imbalance.cli.main import arguments_of, call, help_of, parser_of
from imbalance.config import files
from imbalance.config.files import CONFIGS
from imbalance.config.resolve import load
from imbalance.errors import BadInput
from imbalance.utils.package import __version__


def test_a_number_from_0_on_is_read_and_another_refused():
    assert non_negative_integer("0") == 0 and non_negative_integer("20") == 20
    for text in ("-1", "1.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text}.* given"):
            non_negative_integer(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_exactly_the_flags_that_a_command_reads(name):
    command = COMMANDS[name]
    module, _, function = command.function.partition(":")
    function = getattr(import_module(module), function)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):  # figures 3 to 5, whose rows differ
        from imbalance.experiments.paper_rows import compare

        parameters = inspect.signature(compare).parameters.values()
    read = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    given = {action.dest for action in parser_of(name)._actions} | ({"overrides"} if command.overrides else set())
    assert given == read
    # None is read in vain: each stands in the function's code.
    code = inspect.unwrap(function).__code__
    assert read <= {*code.co_varnames, *code.co_cellvars} or function.__name__.startswith("figure")
    text = help_of(name)
    assert all(flag in text for action in parser_of(name)._actions for flag in action.option_strings)
    assert ("--config.<key>=<value>" in text) == command.overrides


@pytest.mark.parametrize(
    ("command", "words", "heavy"),
    [
        ("train --config=digits_cee", "did you mean digits_ce", {"torch", "numpy", "ml_collections", "pydantic"}),
        ("sweep --config=digits_cee --grid=optim.lr=1", "did you mean digits_ce", {"torch", "numpy", "ml_collections"}),
        (
            "train --config=digits_ce --dryrun",
            "did you mean --dry_run",
            {"torch", "numpy", "ml_collections", "pydantic"},
        ),
        ("train --config=digits_ce --config.optim.lrr=1", "did you mean config.optim.lr?", {"torch", "numpy"}),
        (
            "train --config=digits_ce --config.optim.learning_rate=1",
            "did you mean config.optim.lr?",
            {"torch", "numpy"},
        ),
        ("train --config=digits_ce --config.optim.lr=fast", "not a number", {"torch", "numpy"}),
        ("sweep --config=digits_ce --grid=optim.lrr=1", "did you mean config.optim.lr?", {"torch"}),
    ],
)
def test_a_misspelt_word_is_answered_before_what_takes_long_is_imported(command, words, heavy):
    code = f"import sys; from imbalance.cli.main import call; s = call({command.split()!r}); print(*sys.modules); sys.exit(s)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr
    assert not heavy & set(done.stdout.split())


def test_help_answers_first_and_without_torch():
    """Whatever else the line says, in a fraction of a second."""
    code = (
        "import sys; from imbalance.cli.main import call; "
        "assert call(['sweep', '--nonsense', '--seeds=x', '--help', '--config=nothing']) == 0; "
        "assert call(['--help']) == call([]) == call(['data', '--help']) == 0; print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "ml_collections", "pydantic"} & set(done.stderr.split())
    assert "--grid" in done.stdout and "usage: imbalance data" in done.stdout


@pytest.mark.parametrize("command", [["-m", "imbalance"], ["main.py"]])
def test_both_ways_in_are_the_same(command):
    arguments = ["train"] if "-m" in command else []
    run = [sys.executable, *command, *arguments, "--help"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0 and "--dry_run" in done.stdout


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("experiments.figure3", "type imbalance reproduce figure3\n"),
        ("experiments.findings", "python -m experiments.findings runs nothing; type imbalance findings\n"),
        ("experiments", "type imbalance --help for a list of commands\n"),
    ],
)
def test_a_module_that_was_a_command_says_what_to_type(module, words):
    done = subprocess.run([sys.executable, "-m", module, "--seeds=3"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith(words) and done.stderr.count("\n") == 1 and not done.stdout


def test_the_version_is_printed(capsys):
    assert call(["--version"]) == 0 and capsys.readouterr().out == f"{__version__}\n"


MISTAKES = {
    "trian --config=digits_ce": "trian: no such command; did you mean train?",
    "data verfy --config=digits_ce": "data verfy: no such command; did you mean data verify or data describe?",
    "list": "list: no such command; type list configs or list methods or list data or list models",
    "train": "the following arguments are required: --config",
    "train --confg=digits_ce --config=digits_ce": "--confg=digits_ce: unknown; did you mean --config?",
    "train --config=digts_poly": "no config digts_poly; did you mean digits_poly or",
    "train --config=digits_ce optim.lr=0.1": "optim.lr=0.1: unknown; type an override as --config.<key>=<value>",
    "sweep --config=digits_ce --at-once=3": "--at-once=3: unknown; --at_once is now called --stacked; type --stacked=3 instead",
    "train --config=digits_ce --work_dir=x": "--work_dir=x: unknown; type --config.work_dir=x",
    "train --config=digits_ce --epochs": "--epochs: unknown; type --config.trainer.epochs=<value>",
    "sweep --config=digits_ce --seed=3": "--seed=3: unknown; did you mean --seeds or --stacked or --study?",
    "select nope": "nope: unknown; name a config as --config=nope, and type an override as --config.<key>=<value>",
    "train --config=elsewhere/digits_poly.py": "no file elsewhere/digits_poly.py; for the config of this name in configs/, type digits_poly",
    "train --config=digits_ce --config.optim.learning_rate=1": "config.optim.learning_rate: no such key",
    "train --config=digits_ce --config.trainer=5": "config.trainer: a section, not a value; set its keys one by one, such as config.trainer.accumulation",
    "train --config=digits_ce --config.loss=5": "config.loss: a section, not a value; set its keys one by one, such as config.loss.name",
    "train --config=digits_ce --config.Seed=1": "config.Seed: no such key; did you mean config.seed?",
    "train --config=digits_ce --config.loss.alpha=2": "config.loss.alpha: no such key; poly has it: set config.loss.name=poly too",
    "train --config=digits_ce --config.model.pretrained=runs": "no such key; resnet18, resnet34, resnet50, torchvision, timm, transformers_vision, pretrained, encoder have it: set",
    "train --config=digits_ce --config.model.name=pretrained": "add --config.model.pretrained=<text>",
    "train --config=": "config: empty; name a file, or a config that `imbalance list configs` shows",
    "train --config=digits_ce --dry_run=yes": "--dry_run: takes no value, and was given 'yes'",
    "train --config=digits_ce --config=digits_poly": "--config=digits_poly: --config=digits_ce was given before it; leave one",
    "compare --config=digits_ce --config=digits_poly": "was given before it; put commas between the values",
    "compare --config=digits_ce --seeds=1_0": "--seeds: '1_0' given; type an integer such as 5",
    "compare --config=digits_ce --seeds=1e3": "--seeds: '1e3' given; type an integer such as 5",
    "sweep --config=digits_ce --grid=seed=0,1 --seeds=1": "seed cannot be an axis; type --seeds=<value> instead",
    "sweep --config=digits_ce --search=optim.lr=1:1_0": "'optim.lr=1:1_0' is neither a list nor a range of values",
    "sweep --config=digits_ce --grid=optim.lr=1,1_0": "--config.optim.lr=1_0: not a number",
    "sweep --config=digits_ce --search=seed=0:9": "seed cannot be an axis; leave it out, because a search trains at seed 0",
    "sweep --config=digits_ce --grid=work_dir=a,b": "work_dir cannot be an axis; type --work_dir=<value> instead",
    "sweep --config=digits_ce --grid=config=digits_poly": "config cannot be an axis; type --config=<value> instead",
    "sweep --config=digits_ce --grid=optim.lr=1 --grid=optim.lr=2": "optim.lr has two axes; type all of its values in one axis",
    "sweep --config=digits_ce --search=optim.lr=1:2 --study=../x": "--study: '../x' given; type a name that is not empty",
    "keep --study= --work_dir=x": "--study: '' given; type a name that is not empty, has no slash and starts with no dot",
    "compare --configs=digits_ce": "the following arguments are required: --config",
    "compare --config=digits_ce,digits_pol": "no config digits_pol; did you mean digits_poly",
    "compare --config=digits_ce --seeds=0": "--seeds: 0 given; it must be at least 1",
    "compare --config=digits_ce --metric=test/acuracy": "--metric: 'test/acuracy' given; it must be train/, val/ or test/ followed by one of loss, accuracy",
    "compare --config=digits_ce --config.seed=3": "--config.seed cannot be set for many runs at once; type --seeds=<value> instead",
    "compare --config=digits_ce --config.optim.lr=fast": "--config.optim.lr=fast: not a number",
    "sweep --config=digits_ce": "a sweep needs either --grid or --search",
    "sweep --config=digits_ce --grid=optim.lr": "'optim.lr' is neither a list nor a range of values; type <key>=<value>,<value>,…",
    "sweep --config=digits_ce --grid=optim.Lr=1,2": "config.optim.Lr: no such key; did you mean config.optim.lr?",
    "sweep --config=digits_ce --grid=optim.lr=fast": "--config.optim.lr=fast: not a number",
    "sweep --config=digits_ce --grid=loss.name=poly": "add --config.loss.alpha=<number, greater than 0> --config.loss",
    "sweep --config=digits_ce --grid=optim.lr=1 --sampler=tp": "--sampler: invalid choice: 'tp'",
    "sweep --config=digits_ce --grid=optim.lr=1 --slurm=a=b": "--slurm=a=b has an effect on a cluster only",
    "sweep --config=digits_ce --grid=optim.lr=1 --at_once=4": "--at_once is now called --stacked; type --stacked=4 instead",
    "report --at_once=4": "--at_once=4: unknown",
    "reproduce figure1 --seeds=3": "--seeds=3: unknown",
    "reproduce figure9": "reproduce figure9: no such command; did you mean reproduce figure",
    "protocol --data=digit": "--data: 'digit' given; valid: digits",
    "protocol --data=digits --rates=0.1,fast": "--rates: 'fast' given; type a number such as 0.1",
    "report --config.seed=1": "--config.seed=1: unknown; imbalance report takes no overrides of a config",
    "select --share=2": "--share: 2 given; it must be above 0 and at most 1",
    "data download waterbird": "waterbird: no data set to download has this name; did you mean waterbirds?",
    "forensics nowhere": "nowhere: no such folder; type the run directory of a run that diverged",
    "predict nowhere x.png": "nowhere: no trained model",
    "completion tcsh": "invalid choice: 'tcsh'",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_type(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call(line.split()) == 2
    said = capsys.readouterr()
    *announced, refused = said.err.splitlines()
    assert MISTAKES[line] in refused and len(announced) <= line.startswith(("sweep", "compare")), said.err
    assert all("; run directories in runs; " in text for text in announced) and not said.out
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.parametrize(
    ("line", "announced"),
    [
        (
            "compare --config=digits_ce,digits_poly --seeds=3 --jobs=2",
            "compare: digits_ce, digits_poly; seeds 0 to 2; run directories in runs; 2 workers\n",
        ),
        (
            "sweep --config=digits_ce --grid=optim.lr=1,2 --grid=loss.name=ce,poly --seeds=1 --jobs=1 --work_dir=w",
            "sweep: digits_ce; optim.lr=1,2 × loss.name=ce,poly; run directories in w; 1 worker\n",
        ),
        (
            "protocol --data=digits --seeds=2 --jobs=1",
            "protocol: digits; seeds 0 to 1; run directories in runs; 1 worker\n",
        ),
        ("select --jobs=1", ""),
        ("reproduce figure3 --no-train --jobs=1", ""),
        ("train --config=digits_ce", ""),
    ],
)
def test_a_command_that_trains_many_runs_says_so_before_any_import(line, announced, capsys, monkeypatch):
    monkeypatch.setattr(main_module, "run_command", lambda command, arguments: 0)
    assert call(line.split()) == 0
    assert capsys.readouterr() == ("", announced)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train --config=digits_ce --config.score=val/recall/cat", "'cat' must be one of 0, 1, 2"),
        (
            "train --config=digits_ce --config.trainer.accumulation=500",
            "accumulation: 500 given; it must be at most 287",
        ),
        ("train --config=digits_ce --config.trainer.mixed_precision=fp16", "a CPU does not compute in float16"),
        ("train --config=table_ce", "table.csv: No such file"),
        ("train --config=colored_digits_jtt --config.data.train_per_group=9999,1,1,1", "train_per_group"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would_refuse(line, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call([*line.split(), "--dry_run"]) == 2
    dry = capsys.readouterr()
    assert words in dry.err and not dry.out and not list(tmp_path.iterdir())
    assert call(line.split()) == 2
    assert capsys.readouterr().err == dry.err


def test_a_dry_run_refuses_a_work_dir_in_which_no_run_directory_can_be_made(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    for work_dir in (file / "runs", Path("/proc/runs")):
        for flags in ([], ["--dry_run"]):
            assert call(["train", "--config=digits_erm", f"--config.work_dir={work_dir}", *flags]) == 2
            assert capsys.readouterr().err.startswith(f"config.work_dir: cannot write {work_dir}")
    assert call(["train", "--config=digits_erm", f"--config.work_dir={tmp_path / 'a' / 'b'}", "--dry_run"]) == 0
    assert list(tmp_path.iterdir()) == [file]


def test_a_dry_run_refuses_a_directory_of_another_config(tmp_path, capsys, config):
    given = ["train", "--config=digits_ce", "--config.debug=True", f"--config.work_dir={tmp_path}"]
    assert call([*given, "--dry_run"]) == 0 and not list(tmp_path.iterdir())
    assert call(given) == 0
    (path,) = tmp_path.rglob("config.json")
    path.write_text(path.read_text().replace('"lr": ', '"lr": 1'))
    capsys.readouterr()
    assert call([*given, "--dry_run"]) == 2
    assert re.search(r"(?m)^config.optim.lr: \S+ given, but \S+ was written by a run with \d", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("imbalance tra", ["train "]),
        ("imbalance data v", ["verify "]),
        ("imbalance rep", ["report ", "reproduce "]),
        ("imbalance compare --s", ["--seeds=", "--stacked="]),
        ("imbalance train --config=digits_po", ["--config=digits_poly"]),
        ("imbalance compare --config=digits_ce,digits_po", ["--config=digits_ce,digits_poly"]),
        ("imbalance train --config=digits_ce --config.optim.s", ["--config.optim.schedule.name=", "--config.optim.schedule.warmup_epochs="]),
        ("imbalance report --config.", []),
        ("imbalance nonsense x", []),
    ],
)  # fmt: skip
def test_completion(line, found):
    assert completion.candidates(line=line, whole=True).splitlines() == found
    parts = completion.candidates(line=line, whole=False).splitlines()
    assert [part.rpartition("=")[2] if "=" in line.split(" ")[-1] else part for part in found] == parts


def test_bash_completes_a_word_and_what_follows_an_equals_sign():
    program = (
        "imbalance() { %s -m imbalance \"$@\"; }; compopt() { :; }; eval \"$(imbalance completion bash)\"; "
        "COMP_LINE='imbalance train --config=digits_po'; COMP_POINT=${#COMP_LINE}; _imbalance; echo \"${COMPREPLY[@]}\""
    )  # fmt: skip
    done = subprocess.run(["bash", "-c", program % sys.executable], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "digits_poly\n", done.stderr


def test_lists_name_everything_there_is(capsys):
    assert call(["list", "configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    about = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(about) == sorted(about) and about.keys() >= CONFIG_FILES.keys()
    assert all(len(about[name]) > 1 for name in CONFIG_FILES)
    for kind, name in (("methods", "loss.name=poly"), ("data", "waterbirds"), ("models", "resnet18")):
        assert call(["list", kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith(f"{name} ") for line in lines) and all(len(line.split()) > 1 for line in lines)
        assert not any("partial(" in line for line in lines)  # whose docstring is that of functools


def test_a_list_of_configs_names_the_file_that_cannot_be_parsed(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("\ndef get_config(:\n")
    monkeypatch.setattr(files, "CONFIGS", tmp_path)
    assert re.fullmatch(r"broken +\(not Python: invalid syntax \(broken.py, line 2\)\)", listing.configs())


def test_a_config_is_named_by_its_stem_everywhere(capsys):
    for name in ("train", "data describe", "compare"):
        assert arguments_of(name, ["--config=digits_ce"])["config"] in ("digits_ce", ["digits_ce"])
    assert call(["train", "--config=digits_ce", "--dry_run"]) == 0
    text, _, _ = capsys.readouterr().out.strip().rpartition("\n")
    assert json.loads(text) == json.loads(json.dumps(load(CONFIGS / "digits_ce.py").to_dict()))


def test_a_flag_that_is_not_there_is_refused_by_every_command():
    for name in COMMANDS:
        with pytest.raises(BadInput, match=r"unknown|required"):
            arguments_of(name, ["--no_such_flag=1"])


FLAGS = [(name, action) for name in COMMANDS for action in parser_of(name)._actions if action.option_strings]


@pytest.mark.parametrize(("name", "action"), FLAGS, ids=lambda value: getattr(value, "dest", value))
def test_every_flag_refuses_what_is_no_value_of_it_in_one_line(name, action, capsys):
    """RunContext twice where the first would be lost; empty, no number, in other digits, infinite or negative."""
    (flag, *_), quiet = action.option_strings, action.nargs == 0
    kind = "quiet" if quiet else getattr(action.type, "__name__", "")
    texts = {"quiet": ["x"], "read_list": ["", ",", "1,,2"], "file_name": ["", " ", "/", "../x"]}
    if kind in ("positive_integer", "non_negative_integer", "fraction", "positive_number"):
        texts[kind] = ["", " ", "一", "1e3x", "nan", "-inf", "-1", "1 2", "0x1", "1,2"]
    mistakes = [f"{flag}={text}" for text in texts.get(kind, [])]
    if not isinstance(action, argparse._AppendAction):
        value = "" if quiet else "=1"
        assert call([name.split()[0], *name.split()[1:], f"{flag}{value}", f"{flag}{value}"]) == 2
        said = capsys.readouterr().err
        assert f"{flag}{value} was given before it; " in said and said.count("\n") == 1
    for mistake in mistakes:
        assert call([*name.split(), mistake]) == 2, mistake
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.startswith(flag) and "invalid" not in said, (mistake, said)


@pytest.mark.parametrize("resumes", [False, True])
def test_only_a_command_that_trains_is_said_to_resume(resumes, monkeypatch, capsys):
    def full(command, arguments):
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr("imbalance.cli.main.run_command", full)
    line = ["train", "--config=digits_poly"] if resumes else ["collect"]
    assert call(line) == 2
    what = (
        "the same command resumes from the last checkpoint, or from the start without one"
        if resumes
        else "type the command again"
    )
    assert capsys.readouterr().err == f"disk: No space left on device; fix that, and {what}\n"


def test_a_file_given_as_the_folder_of_a_figure_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert call(["reproduce", "figure1", f"--folder={folder}"]) == 2
        output = capsys.readouterr()
        assert not output.out and output.err.count("\n") == 1 and "is a file; name a folder" in output.err
    assert call(["reproduce", "limit_on_features", "--no-train", f"--results={tmp_path / 'nope'}"]) == 2
    assert "nope is no folder; name the folder that has limit_on_features.csv.gz" in capsys.readouterr().err
