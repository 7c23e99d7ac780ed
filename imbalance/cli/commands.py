"""Every command of the command line: what it is for, its flags, and the function that they are the arguments of."""

import argparse
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """What argparse is given for an argument."""

    names: tuple[str, ...]
    options: dict[str, Any]


class Command(NamedTuple):
    """A command.

    about: a line.
    function: module:name, of keyword-only arguments, one a flag; and `overrides`, where there are.
    flags: of it, in the order of its help.
    overrides: whether it takes --config.<key>=<value>.
    documented: whether its module's docstring is about it.
    """

    about: str
    function: str
    flags: tuple[Flag, ...]
    overrides: bool = False
    documented: bool = True
    hidden: bool = False


def flag(name: str, about: str, **options: Any) -> Flag:
    default = options.get("default")
    shown = "" if default in (None, [], "") or options.get("action") else f" (default: {','.join(map(str, default)) if isinstance(default, list) else default})"  # fmt: skip
    return Flag((name,), {"help": about + shown} | options)


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; a whole number such as 5 is needed") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; a number such as 0.1 is needed") from None


def plain(text: str) -> str:
    """The name of a file or folder, in the folder where it belongs."""
    if not text.strip() or text.startswith(".") or {"/", "\\", "\0"} & set(text):
        raise argparse.ArgumentTypeError(f"{text!r} given; a name is needed, not empty and without /")
    return text


def count(text: str) -> int:
    """At least 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} given; at least 1 is needed")
    return value


def natural(text: str) -> int:
    """At least 0."""
    value = whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} given; at least 0 is needed")
    return value


def share(text: str) -> float:
    """Above 0, and at most 1."""
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} given; it must be above 0 and at most 1")
    return value


def positive(text: str) -> float:
    value = number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} given; it must be a number above 0")
    return value


def several(kind: Callable[[str], Any] = str, valid: tuple[str, ...] = ()) -> Callable[[str], list]:
    """Values with commas between them, all of a kind."""

    def read(text: str) -> list:
        parts = [part.strip() for part in text.split(",")]
        if "" in parts:
            raise argparse.ArgumentTypeError(f"{text!r} given; values with commas between them are needed")
        for part in parts:
            if valid and part not in valid:
                raise argparse.ArgumentTypeError(f"{part!r} given; there are {', '.join(valid)}")
        return [kind(part) for part in parts]

    return read


def configs(text: str) -> list[str]:
    """Names and files with commas between them. A file's path can have commas too, as that of a run directory has."""
    parts, found = text.split(","), []
    while parts:
        joined = (",".join(parts[:n]) for n in range(len(parts), 1, -1))
        path = next((path for path in joined if os.path.isfile(path)), parts[0])  # noqa: PTH113 (no OSError of long ones)
        found.append(path.strip())
        del parts[: path.count(",") + 1]
    if "" in found:
        raise argparse.ArgumentTypeError(f"{text!r} given; names with commas between them are needed")
    return found


CONFIG = flag("--config", "a file, or the name of one in configs/", required=True, metavar="CONFIG")
CONFIGS = flag("--config", "files, or names in configs/, with commas", required=True, type=configs, metavar="CONFIG,…")
SEEDS = flag("--seeds", "seeds 0 to this, exclusive", type=count, default=5, metavar="N")
WORK_DIR = flag("--work_dir", "where the run directories are", default="runs", metavar="FOLDER")
FOLDER = flag("--folder", "the folder to write to", default="report", metavar="FOLDER")
JOBS = Flag(
    ("--jobs",),
    {"help": "runs at a time, which share cores and GPUs (default: one for each core)", "type": count,
     "default": os.cpu_count() or 1, "metavar": "N"},
)  # fmt: skip
STACKED = flag(
    "--stacked", "train up to N runs that differ only in seed, rate and weights as one stacked model",
    type=count, default=16, metavar="N",
)  # fmt: skip
RENAMED_FLAGS = {"--at_once": "--stacked"}
TRAINS = (WORK_DIR, JOBS, STACKED)
STUDY = (
    flag("--study", "the study's name; by default the first config's, or the protocol's", type=plain, metavar="NAME"),
    flag("--storage", "Optuna's storage; by default SQLite in <work_dir>/sweeps/<study>", default="", metavar="URL"),
    flag("--launcher", "where the workers run", choices=["local", "slurm"], default="local"),
    flag("--slurm", "of submitit's parameters: timeout_min=60, slurm_partition=gpu, …; may be given many times",
         action="append", default=[], metavar="NAME=VALUE"),
)  # fmt: skip
RUN = Flag(("run",), {"help": "a run directory: <work_dir>/<config>/<overrides>/seed=<n>", "metavar": "RUN"})
DATA = (
    "digits", "colored_digits", "gaussian", "fashion_pair", "fashion_pair_lenet", "cifar_pair", "cifar_pair_lenet",
    "cifar_pair_features", "cifar", "celeba", "waterbirds",
)  # fmt: skip
BENCH = ("step", "paper", "images", "evaluation", "start", "growth", "sweep", "features", "gpu")
RESULTS = flag("--results", "the folder that keeps a row for every run", default="results", metavar="FOLDER")

PAPER = (
    flag("--data", "of cifar and celeba; by default both", type=several(), default=[], metavar="NAME,…"),
    flag("--train", "train what is missing; --no-train shows what there is", action=argparse.BooleanOptionalAction, default=True),
    FOLDER, SEEDS, *TRAINS,
)  # fmt: skip

COMMANDS = {
    "train": Command(
        "Train and evaluate one config.",
        "imbalance.cli.main:train",
        (CONFIG, flag("--dry_run", "check all that a run checks before it trains, print the config and the run directory, and train nothing",
                      action="store_true")),
        overrides=True, documented=False,
    ),
    "data download": Command(
        "Fetch a data set, after saying under which licence.",
        "imbalance.cli.data:download",
        (Flag(("name",), {"help": "cifar10, waterbirds, …; `imbalance list data` shows all", "metavar": "NAME"}),
         flag("--data_dir", "where to", default="data", metavar="FOLDER")),
        documented=False,
    ),
    "data verify": Command(
        "List what is wrong with a config's data, opening every image.",
        "imbalance.cli.data:verify",
        (CONFIG, Flag(("--all",), {"action": "store_true", "dest": "every", "help": "a line for every problem, not for every kind"})),
        overrides=True, documented=False,
    ),
    "data build": Command(
        "Decode a config's images before a run does.",
        "imbalance.cli.data:build",
        (CONFIG,),
        overrides=True, documented=False,
    ),
    "data describe": Command(
        "Count a config's examples by split, class and group, and show some.",
        "imbalance.cli.data:describe",
        (CONFIG, flag("--sheet", "where the sample images go", default="sheet.png", metavar="FILE")),
        overrides=True, documented=False,
    ),
    "features": Command(
        "Write a network's features of a data set, for heads that train in seconds.",
        "imbalance.deploy.extract_features:features",
        (flag("--config", "says the data, and the network; by default that of --run", metavar="CONFIG"),
         flag("--run", "the directory of a finished run, whose network it is to be", metavar="RUN"),
         flag("--output", "the folder to write", required=True, metavar="FOLDER")),
        overrides=True,
    ),
    "sweep": Command(
        "Train a config over a grid, or search at random or by TPE.",
        "imbalance.sweep.sweep:sweep",
        (CONFIGS,
         flag("--grid", "<key>=<value>,<value>,…; several multiply", action="append", default=[], metavar="AXIS"),
         flag("--search", "<key>=<low>:<high>[:log], or <key>=<value>,…; at seed 0", action="append", default=[], metavar="AXIS"),
         flag("--sampler", "what chooses in --search", choices=["random", "tpe"], default="tpe"),
         flag("--trials", "of --search, in all", type=count, default=20, metavar="N"),
         SEEDS, *TRAINS, *STUDY),
        overrides=True,
    ),
    "compare": Command(
        "Train configs over shared seeds, and compare their means.",
        "imbalance.sweep.compare:compare",
        (CONFIGS, Flag(("--metric",), {"help": "a metric of summary.json (default: test/balanced_accuracy)", "dest": "metric_name",
                                       "default": "test/balanced_accuracy", "metavar": "METRIC"}),
         SEEDS, *TRAINS),
        overrides=True,
    ),
    "protocol": Command(
        "Tune cross-entropy and poly by val, and compare them over seeds.",
        "imbalance.experiments.protocol:protocol",
        (flag("--data", f"of {', '.join(DATA)}", type=several(valid=DATA), required=True, metavar="NAME,…"),
         flag("--batch_sizes", "batch sizes", type=several(count), default=[64, 512], metavar="N,…"),
         flag("--rates", "learning rates; by default those that suit each data set", type=several(positive), default=[], metavar="RATE,…"),
         flag("--epochs", "of every run", type=count, default=200, metavar="N"),
         SEEDS, *TRAINS, *STUDY),
        overrides=True,
    ),
    "collect": Command(
        "Write every run under a work_dir as a row of a table.",
        "imbalance.report.collect:write",
        (WORK_DIR, flag("--output", "the .csv or .parquet file; by default <work_dir>/runs.csv", metavar="FILE")),
    ),
    "report": Command(
        "Make tables, figures and a page of all runs under a work_dir.",
        "imbalance.report.report:report",
        (WORK_DIR, FOLDER, flag("--metrics", "test metrics of the tables", type=several(),
                                default=["balanced_accuracy", "worst_group_accuracy"], metavar="METRIC,…"),
         flag("--pictured", "runs whose surest errors the page shows as pictures or rows", type=natural, default=20,
              metavar="N")),
    ),
    "watch": Command(
        "Show that page in a browser while runs go on.",
        "imbalance.report.watch:watch",
        (Flag(("folders",), {"nargs": "+", "metavar": "FOLDER", "help": "work_dirs, or single run directories"}),
         flag("--port", "of the address on this machine; 0: any that is free", type=natural, default=8000, metavar="N"),
         flag("--metrics", "test metrics, the first of which ranks", type=several(),
              default=["balanced_accuracy", "worst_group_accuracy"], metavar="METRIC,…"),
         flag("--pictured", "runs whose surest errors the page shows; it reads their data each time", type=natural, default=0,
              metavar="N")),
    ),
    "select": Command(
        "Evaluate the epochs that other selection rules would have chosen.",
        "imbalance.sweep.select_epoch:select",
        (flag("--config", "files, or names in configs/, with commas, to be trained where they are not; by default all runs under "
              "--work_dir that kept their logits", type=configs, default=[], metavar="CONFIG,…"),
         flag("--share", "of val whose groups the rule for few labels reads", type=share, default=0.1, metavar="SHARE"),
         SEEDS, *TRAINS),
        overrides=True,
    ),
    "predict": Command(
        "Write what a trained model makes of files.",
        "imbalance.deploy.predict:predict_files",
        (RUN, Flag(("files",), {"nargs": "+", "metavar": "FILE", "help": "images, folders of images, or tables (.csv, .parquet, .npz, .npy)"}),
         flag("--output", "file, row, class, and the probability of each class", default="predictions.csv", metavar="FILE"),
         flag("--batch_size", "examples at a time", type=count, default=256, metavar="N"),
         flag("--device", "cpu, cuda, …; by default a GPU if there is one", metavar="DEVICE")),
        documented=False,
    ),
    "export": Command(
        "Write a trained model as .pt2 (torch.export), .onnx, or .safetensors.",
        "imbalance.deploy.export:export_file",
        (RUN, Flag(("file",), {"metavar": "FILE", "help": "ends in .pt2, .onnx or .safetensors"})),
        documented=False,
    ),
    "forensics": Command(
        "Do the step again at which a run diverged, and say what was not finite first.",
        "imbalance.cli.listing:forensics",
        (RUN,),
        documented=False,
    ),
    "list configs": Command("Name every config, with a line each.", "imbalance.cli.listing:configs", (), documented=False),
    "list methods": Command("Name every sampler, weighting, mixing, loss, objective and head.", "imbalance.cli.listing:methods", (), documented=False),
    "list data": Command("Name every data set.", "imbalance.cli.listing:data", (), documented=False),
    "list models": Command("Name every network.", "imbalance.cli.listing:models", (), documented=False),
    "reproduce figure1": Command("Draw the paper's figure 1.", "imbalance.experiments.figure1:figure1", (FOLDER,)),
    "reproduce figure2": Command("Draw the paper's figure 2.", "imbalance.experiments.figure2:figure2", (FOLDER,)),
    "reproduce figure3": Command("Train and draw the paper's figure 3.", "imbalance.experiments.figure3:figure3", PAPER, overrides=True),
    "reproduce figure4": Command("Train and draw the paper's figure 4.", "imbalance.experiments.figure4:figure4", PAPER, overrides=True),
    "reproduce figure5": Command("Train and draw the paper's figure 5.", "imbalance.experiments.figure5:figure5", PAPER, overrides=True),
    "reproduce gaussian_limit": Command(
        "Show whether weights change what a linear classifier converges to.",
        "imbalance.experiments.gaussian_limit:gaussian_limit",
        TRAINS,
    ),
    "reproduce colored_digits_methods": Command(
        "Compare 21 methods by their worst group.",
        "imbalance.experiments.colored_digits_methods:colored_digits_methods",
        (flag("--tune", "show where the configs' learning rates come from instead", action="store_true"),
         flag("--untuned", "compare more methods instead, for which nothing was tuned", action="store_true"), *TRAINS),
    ),
    "reproduce ten_data_sets": Command(
        "Compare four methods over ten small data sets, each at its best rate, in one report.",
        "imbalance.experiments.ten_data_sets:ten_data_sets",
        (FOLDER, *TRAINS),
        overrides=True,
    ),
    "reproduce pairs": Command(
        "Compare poly with cross-entropy on all pairs of two data sets' classes.",
        "imbalance.experiments.pairs:pairs",
        (flag("--data", "of fashion and cifar; by default both", type=several(), default=[], metavar="NAME,…"),
         PAPER[1], RESULTS, SEEDS, WORK_DIR, JOBS),
        overrides=True,
    ),
    "keep": Command(
        "Add finished runs to results/.",
        "imbalance.report.kept_results:keep",
        (flag("--study", "what the runs are for: results/<study>.csv", required=True, type=plain, metavar="NAME"), WORK_DIR, RESULTS),
    ),
    "findings": Command(
        "Make the tables of docs/findings.md and docs/results.md from results/.",
        "imbalance.experiments.findings:findings",
        (flag("--check", "compare only; exit status 1 where something does not agree", action="store_true"), RESULTS),
    ),
    "pack": Command(
        "Do what waits for a GPU, in pieces.",
        "imbalance.bench.gpu_queue:pack",
        (flag("--minutes", "how long to work, in all", type=positive, default=9.0, metavar="N"),
         flag("--only", "of gpu, tests, bench and rows", type=several(valid=("gpu", "tests", "bench", "rows")), default=["gpu", "tests", "bench", "rows"],
              metavar="KIND,…"),
         RESULTS, SEEDS, WORK_DIR, JOBS),
        overrides=True,
    ),
    "bench": Command(
        "Measure how fast this is, beside what it has to be measured against.",
        "imbalance.bench.bench:bench",
        (flag("--only", f"of {', '.join(BENCH)}", type=several(valid=BENCH), default=list(BENCH), metavar="PART,…"),
         flag("--repeats", "ratios a figure; half where each takes new processes", type=count, default=5, metavar="N"),
         flag("--output", "a JSON file for all ratios", metavar="FILE")),
    ),
    "completion": Command(
        "Print what makes a shell complete these commands.",
        "imbalance.cli.completion:script",
        (Flag(("shell",), {"choices": ["bash", "zsh", "fish"], "help": "bash: source <(imbalance completion bash)"}),),
    ),
    "complete": Command(
        "What may follow a line: for shells.",
        "imbalance.cli.completion:candidates",
        (Flag(("line",), {}), flag("--whole", "whole words, not what follows their last =", action="store_true")),
        hidden=True,
    ),
}  # fmt: skip
