"""Define the data sets, methods, hyperparameters and random settings of SubpopBench, which `subpopbench` trains.

The values are those of the released code of Yang et al., "Change is Hard: A Closer Look at Subpopulation Shift", ICML 2023.
"""

import hashlib
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from imbalance.config.files import config_file
from imbalance.config.resolve import resolve
from imbalance.errors import BadInput
from imbalance.experiments.colored_digits_methods import KERNELS
from imbalance.metrics.selection import KEPT
from imbalance.sweep.study import Point


class DataSet(NamedTuple):
    """A data set of the protocol.

    config: name of the config whose network and data are used.
    size: number of training examples; 0 if the data must be loaded to count them.
    steps: number of training steps of a run.
    check: number of steps from one checkpoint to the next.
    kind: "image", "text" or "tabular", which decides the ranges of the hyperparameters.
    changes: config values by key in which the protocol differs from the config.
    quoted: the test metric that the published table shows.
    """

    config: str
    size: int
    steps: int
    check: int
    kind: str = "image"
    changes: Mapping[str, Any] = {}
    quoted: str = "worst group"


CONSTANT = {"optim.schedule.name": "constant", "optim.schedule.warmup_epochs": 0.0}
CMNIST = {"data.name": "colored_mnist", "data.label_noise": 0.25, "data.color_noise": 0.2, "data.download": False}
MULTISITE = {
    "data.name": "cxr_multisite",
    "data.test": "same",
    "data.size": 224,
    "data.check_counts": True,
    "data.images_from": "store",
    "data.augment": (),
}
# SubpopBench has neither colored digits, which take seconds and get the steps of CMNIST, nor Dominoes, which get those of
# Waterbirds. All other rows are those of SubpopBench.
DATA = {
    "colored_digits": DataSet("colored_digits_erm", 576, 5001, 250),
    "dominoes": DataSet("dominoes_erm", 9000, 5001, 300, changes=CONSTANT),
    "waterbirds": DataSet("waterbirds_erm", 4795, 5001, 300, changes={"data.augment": ()}),
    "celeba": DataSet(
        "celeba_erm",
        162770,
        30001,
        1000,
        changes={"data.train_fraction": 1.0, "data.val_fraction": 1.0, "data.test": "full"},
    ),
    "civilcomments": DataSet(
        "civilcomments_erm", 0, 30001, 1000, "text", {"data.evaluation": "mentions", "data.max_tokens": 220}
    ),
    "multinli": DataSet("multinli_erm", 206175, 30001, 1000, "text"),
    "metashift": DataSet("metashift_erm", 2276, 5001, 300),
    "imagenet_bg": DataSet("imagenet_bg_erm", 183006, 10001, 500),
    "nico_pp": DataSet("nico_pp_erm", 62657, 30001, 1000),
    "living17": DataSet("breeds_erm", 39780, 60001, 2000, quoted="average"),
    "mimic_cxr": DataSet("mimic_cxr_erm", 303591, 20001, 1000),
    "chexpert": DataSet("chexpert_erm", 167093, 20001, 1000),
    "cxr_multisite": DataSet("mimic_cxr_erm", 338134, 20001, 1000, changes=MULTISITE),
    "mimic_notes": DataSet("colored_digits_erm", 0, 10001, 200, "tabular", {"data.name": "mimic_notes"}),
    "cmnist": DataSet("colored_digits_erm", 30000, 5001, 250, changes=CMNIST | {"model.name": "convnet"}),
}
CHECKPOINTS = 20  # of a data set that the protocol does not name


# Hyperparameters


class Range(NamedTuple):
    """The values of a hyperparameter.

    default: value in setting 0.
    random: function that draws the value in any other setting.
    text: distribution of the random values, to be shown.
    """

    default: Any
    random: Callable[[np.random.RandomState], Any]
    text: str


def power(default: float, low: float, high: float, base: int = 10, factor: float = 1.0, whole: bool = False) -> Range:
    """Return the range of factor · base^u with u uniform between `low` and `high`.

    Args:
        whole: whether a random value is rounded down to an integer.
    """

    def random(state: np.random.RandomState) -> float:
        value = float(factor * base ** state.uniform(low, high))
        return int(value) if whole else value

    return Range(default, random, f"{'' if factor == 1 else f'{factor:g} · '}{base}^U({low:g}, {high:g})")


def uniform(default: float, low: float, high: float) -> Range:
    """Return the range of a value that is uniform between `low` and `high`."""
    return Range(default, lambda state: float(state.uniform(low, high)), f"U({low:g}, {high:g})")


def choice(default: Any, *values: Any) -> Range:
    """Return the range of a value that is drawn from `values`, all equally likely."""
    kind = type(values[0])
    return Range(default, lambda state: kind(state.choice(values)), f"one of {', '.join(f'{v:g}' for v in values)}")


def one_minus(default: float, low: float, high: float) -> Range:
    """Return the range of 1 − 10^u with u uniform between `low` and `high`."""
    return Range(default, lambda state: float(1 - 10 ** state.uniform(low, high)), f"1 − 10^U({low:g}, {high:g})")


# By kind of data, the hyperparameters of all methods. The names are those of the released code, whose random values depend
# on them.
SHARED: dict[str, dict[str, Range]] = {
    "image": {
        "lr": power(1e-3, -4, -2),
        "weight_decay": power(1e-4, -6, -3),
        "batch_size": power(108, 6, 6.75, 2, whole=True),
    },
    "text": {
        "lr": power(1e-5, -5.5, -4),
        "weight_decay": power(1e-4, -6, -3),
        "batch_size": power(32, 3, 5.5, 2, whole=True),
        "last_layer_dropout": choice(0.5, 0.0, 0.1, 0.5),
    },
    "tabular": {
        "lr": power(1e-3, -4, -2),
        "weight_decay": power(1e-4, -6, -3),
        "batch_size": power(256, 7, 10, 2, whole=True),
        "mlp_width": power(256, 6, 10, 2, whole=True),
        "mlp_depth": choice(3, 3, 4, 5),
    },
}
SMALL_BATCH = {  # LfF trains two networks, on smaller batches
    "image": power(54, 5, 5.75, 2, whole=True),
    "text": power(16, 3, 4, 2, whole=True),
    "tabular": power(128, 7, 9, 2, whole=True),
}
SHARED_KEYS = {"optim.lr": "lr", "optim.weight_decay": "weight_decay", "model.dropout": "last_layer_dropout"}
OWN: dict[str, Range] = {  # the hyperparameters of single methods
    "mixup_alpha": power(0.2, -1, 1),
    "groupdro_eta": power(0.01, -3, -1),
    "joint_dro_alpha": power(0.1, -2, 0),
    "first_stage_step_frac": uniform(0.5, 0.2, 0.8),
    "jtt_lambda": power(10.0, 0, 2.5),
    "LfF_q": uniform(0.7, 0.05, 0.95),
    "LISA_alpha": power(2.0, -1, 1),
    "LISA_p_sel": uniform(0.5, 0, 1),
    "beta": one_minus(0.9999, -5, -2),
    "gamma": power(1.0, 0, 1, factor=0.5),
    "max_m": power(0.5, -1, -0.1),
    "scale": choice(30.0, 10.0, 30.0),
    "irm_lambda": power(100.0, -1, 5),
    "irm_penalty_anneal_iters": power(500, 0, 4, whole=True),
    "mmd_gamma": power(1.0, -1, 1),
}


# Methods

BY = "group or class"  # stands for "group" if attributes are known, else for "class": without them, a class is a group


class Method(NamedTuple):
    """A method of SubpopBench.

    title: name in the published tables.
    overrides: config values by key; the value BY becomes "group" or "class".
    ranges: the name of a hyperparameter in OWN, by the config key that it sets.
    needs_attributes: whether the method is left out if attributes are unknown: without them it would equal ERM, or differ
        from the published method.
    texts: whether the method can be trained on texts. Methods that mix inputs cannot; cRT cannot, because it has no AdamW.
    """

    title: str
    overrides: Mapping[str, Any] = {}
    ranges: Mapping[str, str] = {}
    needs_attributes: bool = False
    texts: bool = True


def section(path: str, name: str, **values: Any) -> dict[str, Any]:
    """Return the overrides that set a section of the config, such as "loss", to a call of `name` with these values."""
    return {f"{path}.name": name, **{f"{path}.{key}": value for key, value in values.items()}}


PENALTIES = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # of which DFR selects one on val
ALIGNMENT: dict[str, Any] = dict(environments="attribute")
IRM_RANGES = {"objective.penalty": "irm_lambda", "objective.warmup_steps": "irm_penalty_anneal_iters"}
METHODS = {
    "erm": Method("ERM"),
    "mixup": Method("Mixup", section("mix", "mixup"), {"mix.alpha": "mixup_alpha"}, texts=False),
    "groupdro": Method("GroupDRO", section("objective", "group_dro", size_adjustment=0.0, adjust_absent=False),
                       {"objective.step_size": "groupdro_eta"}, needs_attributes=True),
    "cvardro": Method("CVaRDRO", section("objective", "cvar"), {"objective.level": "joint_dro_alpha"}),
    "jtt": Method("JTT", section("weights", "just_train_twice"), {"weights.upweight": "jtt_lambda"}),
    "lff": Method("LfF", section("objective", "lff", decay=0.0), {"objective.amplification": "LfF_q"}),
    "lisa": Method("LISA", section("mix", "lisa"), {"mix.alpha": "LISA_alpha", "mix.same_label": "LISA_p_sel"},
                   needs_attributes=True, texts=False),
    "resample": Method("ReSample", section("sampler", "resample", by=BY, exponent=1.0)),
    "reweight": Method("ReWeight", section("weights", "importance", by=BY, exponent=1.0)),
    "sqrtreweight": Method("SqrtReWeight", section("weights", "square_root", by=BY)),
    "cbloss": Method("CBLoss", section("weights", "effective_number", by=BY), {"weights.beta": "beta"}),
    "focal": Method("Focal", section("loss", "focal"), {"loss.gamma": "gamma"}),
    "ldam": Method("LDAM", section("loss", "ldam"), {"loss.max_margin": "max_m", "loss.scale": "scale"}),
    "bsoftmax": Method("BSoftmax", section("loss", "balanced_softmax")),
    "irm": Method("IRM", section("objective", "irm", **ALIGNMENT), IRM_RANGES, needs_attributes=True),
    "mmd": Method("MMD", section("objective", "mmd", gammas=KERNELS, **ALIGNMENT), {"objective.penalty": "mmd_gamma"},
                  needs_attributes=True),
    "coral": Method("CORAL", section("objective", "coral", **ALIGNMENT), {"objective.penalty": "mmd_gamma"},
                    needs_attributes=True),
    "crt": Method("CRT", section("head", "crt", by=BY, momentum=0.9), texts=False),
    "reweightcrt": Method("ReWeightCRT", section("head", "reweight_crt", by=BY, momentum=0.9), texts=False),
    "vanillacrt": Method("VanillaCRT", section("head", "vanilla_crt", momentum=0.9), texts=False),
    "dfr": Method("DFR", section("head", "dfr", inverse_penalties=PENALTIES, fits=20), needs_attributes=True),
}  # fmt: skip
RETRAINED = ("crt", "reweight_crt", "vanilla_crt")  # heads that a second stage trains by gradient descent


def has_head(method: Method) -> bool:
    """Return whether the method trains a new last layer once the network has been trained."""
    return "head.name" in method.overrides


def depends_on_attributes(method: str) -> bool:
    """Return whether a run of the method differs between known and unknown attributes."""
    return METHODS[method].needs_attributes or BY in METHODS[method].overrides.values()


# Points


def seed_hash(*values: Any) -> int:
    """Return the hash by which SubpopBench seeds random values, so that a hyperparameter has the same value in all methods."""
    return int(hashlib.md5(str(values).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def value_of(name: str, values: Range, setting: int) -> Any:
    """Return the value of the hyperparameter `name` in the setting with this number.

    Setting 0 has the default value, every other setting a random one.
    """
    if setting == 0:
        return values.default
    return values.random(np.random.RandomState(seed_hash(seed_hash(setting), name)))


def point(data_set: DataSet, method: str, setting: int, seed: int, attributes: str, steps: int) -> Point:
    """Return the config, the overrides and the seed of a run, for the Optuna study.

    Args:
        method: key of METHODS.
        setting: number of the setting; 0 for the default values, and a number above 0 for random values.
        attributes: "known" or "unknown" in training.
        steps: number of training steps, rounded to whole epochs; 0 for as many as the protocol has for the data set.
    """
    shared = SHARED[data_set.kind]
    batch = SMALL_BATCH[data_set.kind] if method == "lff" else shared["batch_size"]
    values = {
        **{key: value_of(name, shared[name], setting) for key, name in SHARED_KEYS.items() if name in shared},
        "trainer.batch_size": value_of("batch_size", batch, setting),
    }
    if values.get("model.dropout") == 0.0:  # the released code then has the dropout of BERT's config
        values["model.dropout"] = 0.1
    if (
        data_set.kind == "tabular"
    ):  # the last of `mlp_depth` layers has no ReLU: it is one linear map with the classifier
        width, depth = (value_of(name, shared[name], setting) for name in ("mlp_width", "mlp_depth"))
        values["model.hidden"] = (width,) * (depth - 1)
    steps_per_epoch = ceil(data_set.size / values["trainer.batch_size"])
    epochs = max(1, round((steps or data_set.steps) / steps_per_epoch))
    every = max(1, round(epochs * data_set.check / data_set.steps))
    values["trainer.epochs"] = epochs
    values |= method_values(METHODS[method], "group" if attributes == "known" else "class", setting, values)
    # A head is fitted to the last epoch, which is then the only checkpoint.
    checkpoints = {"callbacks.select": "last"} if has_head(METHODS[method]) else KEPT
    values |= {"trainer.eval_every": min(every, values["trainer.epochs"]), **checkpoints}
    return {"config": data_set.config, **data_set.changes, **values, "seed": seed}


def method_values(method: Method, by: str, setting: int, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config values of a method by key.

    Args:
        by: "group" or "class", which stands in for BY.
        setting: number of the setting; 0 for the default values, and a number above 0 for random values.
        shared: values that all methods have, with the keys trainer.epochs, trainer.batch_size, optim.lr and
            optim.weight_decay. The epochs are those of all stages of a method together.
    """
    values = {
        **{key: by if value == BY else value for key, value in method.overrides.items()},
        **{key: value_of(name, OWN[name], setting) for key, name in method.ranges.items()},
    }
    if values.get("weights.name") == "just_train_twice":  # the first run takes a share of the steps
        epochs, share = (
            shared["trainer.epochs"],
            value_of("first_stage_step_frac", OWN["first_stage_step_frac"], setting),
        )
        values["weights.first_epochs"] = max(1, round(share * epochs))
        values["trainer.epochs"] = max(1, epochs - values["weights.first_epochs"])
    if values.get("head.name") in RETRAINED:  # the second stage has the hyperparameters and the steps of the first
        values |= {"head.epochs": shared["trainer.epochs"], "head.batch_size": shared["trainer.batch_size"],
                   "head.lr": shared["optim.lr"], "head.weight_decay": shared["optim.weight_decay"]}  # fmt: skip
    return values


def data_set_of(name: str, steps: int, overrides: Mapping[str, Any]) -> DataSet:
    """Return the row of DATA with this name; for another name, a row for the config <name>_erm.

    The row for a config is of the kind "text" if the data have a tokenizer, and of the kind "image" if not. A data set without
    a known size is loaded, to count its training examples.

    Args:
        steps: number of training steps of a data set that is not in DATA; of no effect for a data set in DATA.
        overrides: config values by key, for all runs.

    Raises:
        BadInput: the config does not exist, `steps` is 0 for a data set that is not in DATA, or files of the data are missing.
    """
    if name in DATA:
        data_set = DATA[name]
        return data_set if data_set.size else data_set._replace(size=count_train(data_set, overrides))
    config = f"{name}_erm"
    try:
        config_file(config)
    except BadInput:
        raise BadInput(
            f"--data: {name!r} given; valid: {', '.join(DATA)}; also, if you add --steps, any <name> with a config "
            "configs/<name>_erm.py"
        ) from None
    if not steps:
        raise BadInput(
            f"--data={name}: the protocol has no number of steps for this data set; add one, as --steps=5001"
        )
    experiment, _ = resolve(config, dict(overrides))
    kind = "text" if "tokenizer" in experiment.data else "image"
    optimizer = {} if kind == "text" else {"optim.name": "sgd", "optim.momentum": 0.9, "optim.decayed": "all"}
    data_set = DataSet(config, 0, steps, max(1, steps // CHECKPOINTS), kind, {**optimizer, **CONSTANT})
    return data_set._replace(size=count_train(data_set, overrides))


def count_train(data_set: DataSet, overrides: Mapping[str, Any]) -> int:
    """Load a data set, and return the number of its training examples.

    Args:
        overrides: config values by key, for all runs.
    """
    from imbalance.training.learner import load_dataset  # here, because it imports torch

    experiment, _ = resolve(data_set.config, {**data_set.changes, **overrides})
    return len(load_dataset(experiment).train)
