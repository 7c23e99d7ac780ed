"""Examples: a valid config section for every entry of every registry, which the tests of all entries read.

An entry is a name that a config section can have, such as "poly" for `config.loss`. When you add an entry to the
program, add a line to `EXAMPLES`. `python -m pytest -k loss-poly` runs the tests of one entry.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
from helpers.data_files import make_folder, make_table, write_people

from imbalance.config.registries import registries
from imbalance.config.schema import keyword_annotations


class Example(NamedTuple):
    """A valid config section for an entry, and what tests of the entry need.

    settings: the values of the section, for every key but "name". A change of any of them must change what a run
        computes.
    config: values outside the section that the entry needs: "section" for a whole section, "section__key" for one
        value.
    other: for a key of `settings`, a second value that changes what a run computes, or a dict of it and further keys.
        See `changes` for the default.
    inert: keys of `settings` that change nothing in the short run of tests/test_contract.py; give the reason in a
        comment.
    elsewhere: the test file that trains the entry; tests/test_contract.py cannot, because the entry needs other data.
    files: for a data set, a function that writes the files of the data set into a data_dir.
    """

    settings: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}
    other: Mapping[str, Any] = {}
    inert: tuple[str, ...] = ()
    elsewhere: str = ""
    files: Callable[[Path], None] | None = None


GROUP_DRO = dict(objective=dict(name="group_dro", step_size=0.1, size_adjustment=1.0, adjust_absent=False))
LAYER = dict(by="group", epochs=2, batch_size=30, lr=0.1, momentum=0.5, weight_decay=0.01)
FURTHER = {key: value for key, value in LAYER.items() if key != "by"}
CLIPPED = dict(trainer__clip_norm=0.05)
SHARP = dict(lr=0.1, momentum=0.9, weight_decay=0.01, decayed="weights", radius=0.05)
DIGITS = dict(
    classes=tuple(range(10)), imbalance="none", imbalance_ratio=1.0, total=0, val_fraction=0.2, test_fraction=0.2
)
EVEN_ODD = (("0", "even"), ("1", "odd"), ("2", "even"), ("3", "odd"))
LONG_TAILED = dict(imbalance="exp", imbalance_ratio=100.0, val_from="test", val_fraction=0.1, augment=("flip",))
IMAGES = dict(
    val_fraction=0.0,
    test_fraction=0.0,
    mode="RGB",
    convert=False,
    reduce=False,
    resize=20,
    size=16,
    images_from="store",
    augment=(),
)
PUBLISHED = dict(size=14, check_counts=True, images_from="store", augment=())
BIASED = dict(conflicting=0.05, severity=4, draw_seed=0, val_fraction=0.1, augment=())
TOKENS = dict(tokenizer="words", vocabulary=100, max_tokens=20, bucket=10)
PARAMETRIC = dict(alpha=0.1, beta=1.0, gamma=0.5, temperature=0.2, width=5, queue=40)
THREE_EXPERTS = dict(name="experts", network=dict(name="mlp", hidden=(8, 6)), experts=3, shared=3)
IN_RESNET, IN_PUBLISHED = "tests/models/test_resnet.py", "tests/models/test_library_models.py"
IN_TEXT, IN_SETS = "tests/data/texts/test_text.py", "tests/data/sets/test_{}.py"

EXAMPLES: dict[str, dict[str, Example]] = {
    "data": {
        "gaussian": Example(
            dict(dim=5, means=((3.0,), (0.0, 3.0)), scale=1.0, radius=0.0, train_per_class=(40, 10), val_per_class=(9, 9),
                 test_per_class=(9, 9)),
        ),
        "digits": Example(DIGITS),
        "colored_digits": Example(
            dict(train_per_group=(50, 20, 10, 20), saturation=0.5, val_fraction=0.1, test_fraction=0.1)
        ),
        "cifar10": Example(
            dict(classes=("cat", "dog"), imbalance="step", imbalance_ratio=10.0, total=0, val_fraction=0.2,
                 draw="published", download=False), elsewhere=IN_SETS.format("cifar10"),
        ),
        "cifar10lt": Example(LONG_TAILED | dict(download=False), elsewhere=IN_SETS.format("long_tailed")),
        "cifar100lt": Example(LONG_TAILED | dict(download=False), elsewhere=IN_SETS.format("long_tailed")),
        "corrupted_cifar10": Example(
            BIASED | dict(source="made", download=False), elsewhere=IN_SETS.format("biased"),
        ),
        "colored_fashion": Example(BIASED, elsewhere=IN_SETS.format("biased")),
        "colored_mnist": Example(
            dict(label_noise=0.25, color_noise=0.2, download=False), elsewhere=IN_SETS.format("colored_mnist")
        ),
        "dominoes": Example(
            dict(top="fashion", top_classes=("coat", "dress"), classes=("automobile", "truck"), correlation=0.95,
                 val_per_group=250, augment=(), download=False), elsewhere=IN_SETS.format("dominoes"),
        ),
        "fashion": Example(LONG_TAILED | dict(classes=("bag", "coat"), total=0), elsewhere=IN_SETS.format("fashion")),
        "medmnist": Example(dict(flag="dermamnist", augment=()), elsewhere=IN_SETS.format("medmnist")),
        "waterbirds": Example(dict(size=16, regenerated=False, images_from="store", augment=()), elsewhere=IN_SETS.format("waterbirds")),
        "celeba": Example(
            dict(target="Blond_Hair", confounders=("Male",), train_fraction=0.02, val_fraction=0.1, test="balanced",
                 subset_seed=0, size=16, images_from="store", augment=()), elsewhere=IN_SETS.format("celeba"),
        ),
        "metashift": Example(PUBLISHED | dict(metadata=""), elsewhere=IN_SETS.format("published")),
        "imagenet_bg": Example(PUBLISHED | dict(test="mixed_rand"), elsewhere=IN_SETS.format("published")),
        "nico_pp": Example(PUBLISHED | dict(metadata=""), elsewhere=IN_SETS.format("published")),
        "breeds": Example(PUBLISHED | dict(subset="living17", test="target"), elsewhere=IN_SETS.format("published")),
        "chexpert": Example(PUBLISHED, elsewhere=IN_SETS.format("published")),
        "mimic_cxr": Example(PUBLISHED, elsewhere=IN_SETS.format("published")),
        "cxr_multisite": Example(PUBLISHED | dict(test="same"), elsewhere=IN_SETS.format("published")),
        "mimic_notes": Example(elsewhere=IN_SETS.format("mimic_notes")),
        "imagenet_lt": Example(PUBLISHED | dict(folder="imagenet"), elsewhere=IN_SETS.format("published")),
        "places_lt": Example(PUBLISHED | dict(folder="places"), elsewhere=IN_SETS.format("published")),
        "inaturalist2018": Example(PUBLISHED | dict(folder="inaturalist"), elsewhere=IN_SETS.format("published")),
        "urbancars": Example(PUBLISHED, elsewhere=IN_SETS.format("published")),
        "spuco": Example(PUBLISHED | dict(subset="birds"), elsewhere=IN_SETS.format("published")),
        "camelyon17": Example(PUBLISHED | dict(val="other hospital"), elsewhere=IN_SETS.format("published")),
        "iwildcam": Example(PUBLISHED | dict(cameras="other"), elsewhere=IN_SETS.format("published")),
        "table": Example(
            IMAGES | dict(file="birds.csv", delimiter=",", folder="images", path="path", target="target",
                          classes=("water", "land"), attributes=("place",), split="split"), files=make_table,
            inert=("images_from",),  # without a random crop the pixels are the same
        ),
        "folder": Example(IMAGES | dict(folder="birds"), files=make_folder, inert=("images_from",)),  # as for "table"
        "fairness": Example(
            dict(table="compas", file="", attributes=("sex",), val_fraction=0.2, test_fraction=0.2, check_counts=False),
            elsewhere=IN_SETS.format("fairness"),
        ),
        "keel": Example(
            dict(table="abalone19", val_fraction=0.2, test_fraction=0.2, check_counts=False), elsewhere=IN_SETS.format("keel")
        ),
        "arrays": Example(
            dict(file="people.csv", delimiter=",", numeric=(), categorical=(), missing=("", "?"), target="income",
                 classes=("low", "high"), attributes=("sex",), split="split", val_fraction=0.0, test_fraction=0.0),
            files=write_people,
        ),
        "features": Example(dict(folder="features", standardise=True), elsewhere="tests/deploy/test_extract_features.py"),
        "text": Example(
            TOKENS | dict(file="texts.csv", delimiter=",", text=("text",), skip_empty=False, target="target", classes=("no", "yes"), attributes=(),
                          evaluated_by=(), split="", val_fraction=0.1, test_fraction=0.2, train_per_group=()),
            elsewhere=IN_TEXT,
        ),
        "civilcomments": Example(TOKENS | dict(evaluation="fine"), elsewhere=IN_SETS.format("civilcomments")),
        "multinli": Example(TOKENS, elsewhere=IN_SETS.format("multinli")),
        "in_memory": Example(elsewhere=IN_SETS.format("in_memory")),
        "class_map": Example(
            dict(source=dict(name="digits") | DIGITS, train_map=EVEN_ODD, eval_map=(("4", "even"), ("5", "odd")))
        ),
        "drawn": Example(
            dict(source=dict(name="digits") | DIGITS, groups="source", train_counts=(40, 8), val_counts=(8,), test_counts=(10,),
                 test_from="test", standardise=False),
            elsewhere=IN_SETS.format("drawn"),  # other groups and standardised features need another source
        ),
        "new_classes": Example(
            dict(source=dict(name="digits") | DIGITS, train_map=EVEN_ODD, eval_map=(("6", "six"), ("7", "seven")),
                 head_strength=1.0)
        ),
    },
    "groups": {
        "data": Example(config=GROUP_DRO),
        "eiil": Example(dict(first_epochs=1, ascent_steps=9, ascent_lr=0.1), config=GROUP_DRO),
        "george": Example(
            dict(first_epochs=3, reduction="pca", components=2, algorithm="gmm", max_clusters=3, parts=3,
                 smallest_part=4),
            config=GROUP_DRO, other=dict(max_clusters=1, parts=1, smallest_part=60, components=1),
        ),
        "predictions": Example(dict(first_epochs=1), config=GROUP_DRO),
        "spare": Example(
            dict(first_epochs=3, lr=0.1, clusters=(2, 3), threshold=0.99, power=2.0),
            config=dict(sampler=dict(name="within_class")), other=dict(threshold=0.01, clusters=(4,)),
        ),
        "ssa": Example(
            dict(first_epochs=2, lr=0.05, threshold=0.6, labelled_share=0.5), config=GROUP_DRO,
            other=dict(threshold=1.0, labelled_share=0.25),
        ),
        "xrm": Example(dict(first_epochs=4, lr=0.2), config=GROUP_DRO),
    },
    "sampler": {
        "shuffle": Example(),
        "undersample": Example(dict(by="group", redraw=True)),
        "reject": Example(dict(by="class", redraw=True)),
        "oversample": Example(dict(by="class")),
        "balanced": Example(dict(by="group")),
        "resample": Example(dict(by="group", exponent=1.0)),
        "within_class": Example(),
        "annealed_linear": Example(dict(by="group")),
        "annealed_sigmoid": Example(dict(by="group", steepness=4.0)),
        "annealed_step": Example(dict(by="group")),
        "expanding": Example(
            dict(by="group", warmup_epochs=0, every=1, added=9), other=dict(warmup_epochs=1, every=2, added=20)
        ),
    },
    "weights": {
        "uniform": Example(),
        "importance": Example(dict(by="group", exponent=1.0)),
        "square_root": Example(dict(by="group")),
        "truncated": Example(dict(by="group", exponent=1.0, ceiling=2.0)),
        "effective_number": Example(dict(by="group", beta=0.9)),
        "deferred": Example(dict(by="group", beta=0.9, start_epoch=1), other=dict(start_epoch=0)),
        "given": Example(
            dict(by="class", values=(1.0, 2.0)),
            other=dict(values=(2.0, 1.0), by=dict(by="group", values=(1.0, 1.0, 1.0, 9.0))),
        ),
        "residual": Example(config=dict(sampler=dict(name="annealed_linear", by="group"))),
        "just_train_twice": Example(dict(first_epochs=1, upweight=5.0)),
    },
    "mix": {
        "none": Example(),
        "mixup": Example(dict(alpha=0.5)),
        "cutmix": Example(dict(alpha=0.5)),
        "glmc": Example(
            dict(alpha=0.5, exponent=1.0),
            config=dict(objective=dict(name="glmc", penalty=0.5, exponent=1.2, width=5)),
        ),
        "remix": Example(dict(alpha=0.5, kappa=2.0, tau=0.5)),
        "lisa": Example(
            dict(alpha=2.0, same_label=0.5), config=dict(sampler=dict(name="balanced", by="group")),
            other=dict(same_label=0.0),
        ),
    },
    "loss": {
        "cross_entropy": Example(),
        "poly": Example(dict(alpha=1.5, left="exponential")),
        "vs": Example(dict(gamma=0.3, tau=1.2)),
        "smoothed": Example(dict(label_smoothing=0.2, gamma=0.3, tau=1.2)),
        "vs_group": Example(dict(gamma=0.3, tau=1.2)),
        "cdt": Example(dict(gamma=0.4)),
        "logit_adjusted": Example(dict(tau=1.2)),
        "balanced_softmax": Example(),
        "label_aware_smoothing": Example(dict(head=0.4, tail=0.1)),
        "ldam": Example(dict(max_margin=0.5, scale=3.0)),
        "focal": Example(dict(gamma=1.5)),
        "class_balanced": Example(dict(beta=0.99, gamma=0.5)),
        "class_balanced_sigmoid": Example(dict(beta=0.99, gamma=0.5)),
    },
    "objective": {
        "average": Example(),
        "log_average": Example(),
        "group_dro": Example(dict(step_size=0.1, size_adjustment=1.0, adjust_absent=False)),
        "cvar": Example(dict(level=0.3)),
        "worst_group": Example(),
        "irm": Example(dict(environments="group", penalty=2.0, warmup_steps=0), other=dict(warmup_steps=4)),
        "vrex": Example(dict(environments="group", penalty=2.0, warmup_steps=0), other=dict(warmup_steps=4)),
        "coral": Example(dict(environments="group", penalty=2.0)),
        "mmd": Example(dict(environments="group", penalty=2.0, gammas=(0.1, 1.0)), other=dict(gammas=(10.0,))),
        "lade": Example(dict(penalty=0.5, drift=0.1), config=dict(loss=dict(name="balanced_softmax"))),
        "lff": Example(dict(amplification=0.7, decay=0.5), other=dict(decay=0.9)),
        "ula": Example(
            dict(tau=1.5, temperature=2.0, decay=0.5),
            config=dict(groups=dict(name="predictions", first_epochs=1)), other=dict(decay=0.9),
        ),
        "lc": Example(dict(amplification=0.7, decay=0.5), other=dict(decay=0.9)),
        "bcl": Example(dict(penalty=2.0, temperature=0.2, width=5)),
        "paco": Example(PARAMETRIC | dict(momentum=0.5)),
        "gpaco": Example(PARAMETRIC | dict(smoothing=0.1)),
        "proco": Example(dict(penalty=2.0, temperature=0.2, width=5)),
        "glmc": Example(
            dict(penalty=0.5, exponent=1.2, width=5), config=dict(mix=dict(name="mixup", alpha=0.5)),
        ),
        "ride": Example(
            dict(diversity=0.4, temperature=1.5, tempering=0.3, start_epoch=1, scale=3.0),
            config=dict(model=THREE_EXPERTS), other=dict(start_epoch=0),
        ),
        "sade": Example(dict(tau=2.0, scale=1.5), config=dict(model=THREE_EXPERTS)),
        "cnc": Example(
            dict(share=0.5, temperature=0.2),
            config=dict(groups=dict(name="predictions", first_epochs=6), sampler=dict(name="balanced", by="group"), optim__lr=0.03),
            other=dict(share=0.0),
        ),
        "aucm": Example(dict(positives=(1,), share=0.5, margin=1.0), other=dict(positives=(0,), share=1.0, margin=0.1), inert=("positives",)),  # of two classes both have the same AUROC
        "partial_auc": Example(
            dict(positives=(1,), share=0.5, margin=1.0, estimator="kl", level=0.5, step=0.5),
            other=dict(positives=(0,), share=1.0),
        ),
        "smooth_ap": Example(dict(positives=(1,), share=0.5, temperature=0.2), other=dict(positives=(0,), share=1.0)),
        "soap": Example(
            dict(positives=(1,), share=0.5, margin=1.0, decay=0.1), other=dict(positives=(0,), share=1.0, decay=0.9)
        ),
        "supcon": Example(dict(penalty=2.0, temperature=0.2, width=5, detached=False)),
        "george": Example(),
        "ssa": Example(dict(threshold=0.6, labelled_share=0.5), other=dict(threshold=1.0, labelled_share=0.25)),
        "xrm": Example(),
    },
    "head": {
        "none": Example(),
        "logit_adjusted": Example(dict(tau=1.0)),
        "tau_normalised": Example(dict(tau=0.7)),
        "prior": Example(dict(target="uniform"), other=dict(target="natural")),
        "crt": Example(LAYER),
        "vanilla_crt": Example(FURTHER),
        "reweight_crt": Example(LAYER),
        "lws": Example(LAYER),
        "weight_balancing": Example(
            FURTHER | dict(limit=0.2, beta=0.9), other=dict(weight_decay=0.5)
        ),
        "los": Example(FURTHER | dict(smoothing=0.4)),
        "mislas": Example(
            LAYER | dict(head_smoothing=0.3, tail_smoothing=0.1, layer_factor=0.5)
        ),
        "test_time": Example(
            dict(epochs=2, batch_size=5, lr=0.1, momentum=0.5, weight_decay=0.1),
            elsewhere="tests/methods/heads/test_test_time.py",  # it needs augmentations
        ),
        "dfr": Example(dict(inverse_penalties=(0.3, 1.0), fits=2), other=dict(inverse_penalties=(0.01, 0.02))),
        "dpe": Example(
            dict(by="group", members=3, epochs=2, batch_size=10, lr=0.01, momentum=0.5, entropic_scale=5.0,
                 norm_penalty=1.0, similarity_penalty=10.0),
        ),
        "temperature": Example(),
        "thresholds": Example(
            dict(metric="balanced_accuracy", rounds=1), other=dict(metric="worst_group_accuracy"),
            inert=("rounds",),  # two classes have one threshold, which the first round fits
        ),
        "hold_out": Example(dict(fraction=0.25)),
        "self": Example(
            dict(fraction=0.25, first_epochs=1, share=0.5, steps=9, batch_size=8, lr=0.5)
        ),
        "afr": Example(dict(fraction=0.25, gamma=4.0, penalty=0.1, steps=20, lr=0.5)),
    },
    "adapter": {
        "none": Example(),
        "lora": Example(
            dict(rank=2, alpha=4.0, dropout=0.0, targets=()), config=dict(model=dict(name="mlp", hidden=(8, 8))),
            other=dict(dropout=0.5, targets=("1",)),
        ),
    },
    "model": {
        "linear": Example(dict(init="default")),
        "linear_cosine": Example(dict(init="default"), elsewhere="tests/models/test_models.py"),  # no learning rate makes it diverge
        "mlp": Example(dict(hidden=(8,)), other=dict(hidden=(7,))),
        "mlp_cosine": Example(dict(hidden=(8,)), other=dict(hidden=(7,))),
        "experts": Example(
            dict(network=dict(name="mlp", hidden=(8, 6)), experts=3, shared=3),
            other=dict(network=dict(network=dict(name="mlp", hidden=(7, 6))), shared=1),
        ),
        # These models need larger images than the data of tests/test_contract.py has.
        "convnet": Example(elsewhere="tests/models/test_models.py"),
        "lenet": Example(elsewhere="tests/models/test_models.py"),
        "resnet18": Example(dict(pretrained="", frozen=False), elsewhere=IN_RESNET),
        "resnet34": Example(dict(pretrained="", frozen=False), elsewhere=IN_RESNET),
        "resnet50": Example(dict(pretrained="", frozen=False), elsewhere=IN_RESNET),
        "resnet20": Example(dict(frozen=False), elsewhere=IN_RESNET),
        "resnet32": Example(dict(frozen=False), elsewhere=IN_RESNET),
        "torchvision": Example(dict(network="resnet18", pretrained="", frozen=False), elsewhere=IN_PUBLISHED),
        "timm": Example(dict(network="resnet18", pretrained="", frozen=False), elsewhere=IN_PUBLISHED),
        "transformers_vision": Example(dict(network="a folder", pretrained="", frozen=False), elsewhere=IN_PUBLISHED),
        "lite0": Example(elsewhere="tests/models/test_backbones.py"),
        "pretrained": Example(dict(pretrained="a run"), elsewhere="tests/deploy/test_extract_features.py"),
        # These models need texts.
        "bag_of_embeddings": Example(dict(width=6), elsewhere=IN_TEXT),
        "transformer": Example(dict(width=8, depth=2, heads=2, dropout=0.0), elsewhere=IN_TEXT),
        "encoder": Example(
            dict(pretrained="a folder", pool="pooler", dropout=0.0), elsewhere="tests/models/test_encoder.py"
        ),
        "minilm": Example(elsewhere="tests/models/test_backbones.py"),
    },
    "optim.schedule": {
        "constant": Example(dict(warmup_epochs=2.0)),
        "cosine": Example(dict(warmup_epochs=2.0)),
        "linear": Example(dict(warmup_epochs=2.0)),
        "step": Example(
            dict(milestones=(4, 8), factor=0.1, warmup_epochs=2.0), other=dict(milestones=(4,), warmup_epochs=1.0)
        ),
    },
    "optim": {
        "sgd": Example(dict(lr=0.1, momentum=0.9, weight_decay=0.01, decayed="weights"), config=CLIPPED),
        "adam": Example(dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.01, decayed="all")),
        "adamw": Example(dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.01, decayed="weights"), config=CLIPPED),
        "lbfgs": Example(
            dict(weight_decay=0.01, decayed="weights", tolerance=1e-4), elsewhere="tests/training/test_lbfgs.py"
        ),
        "sgd_apart": Example(
            dict(lr=0.02, head_factor=5.0, layer_decay=0.5, momentum=0.9, weight_decay=0.01, decayed="weights"), config=CLIPPED
        ),
        "sam": Example(SHARP, config=CLIPPED),
        "imb_sam": Example(SHARP | dict(tail_below=60), other=dict(tail_below=200)),
        "focal_sam": Example(SHARP | dict(gamma=2.0, strength=0.4)),
        "adamw_apart": Example(dict(lr=0.01, head_factor=3.0, layer_decay=0.5, betas=(0.9, 0.99), weight_decay=0.01, decayed="all")),
    },
}  # fmt: skip
# The program adds a variant with a normalised head to every model, so give it the same example.
for model in [name for name in EXAMPLES["model"] if not name.endswith("_cosine")]:
    EXAMPLES["model"].setdefault(f"{model}_cosine", EXAMPLES["model"][model])
# The second value of each key for which twice the value is invalid; `other` of an example takes precedence.
OTHERS: dict[str, Any] = {"beta": 0.5, "momentum": 0.0, "betas": (0.5, 0.9), "first_epochs": 20}


def missing_examples(tables: Mapping[str, Iterable[str]], examples: Mapping[str, Mapping[str, Example]]) -> list[str]:
    """Return a message for every entry without an example and every example without an entry, with the line to change.

    Args:
        tables: the names of entries by section.
        examples: `EXAMPLES`, or a part of it.
    """
    problems = []
    for section, table in tables.items():
        for name in table:
            if name not in examples.get(section, {}):
                keys = (
                    ", ".join(f"{key}=…" for key in keyword_annotations(table[name]))
                    if isinstance(table, Mapping)
                    else "…"
                )
                problems.append(
                    f"{section} {name!r} has no example: add the line `{name!r}: Example(dict({keys})),` "
                    f'to EXAMPLES["{section}"] in tests/examples.py'
                )
    for section, section_examples in examples.items():
        problems += [
            f'there is no {section} {name!r}: delete its line from EXAMPLES["{section}"] in tests/examples.py'
            for name in section_examples if name not in tables.get(section, ())
        ]  # fmt: skip
    return problems


def names(section: str) -> list[str]:
    """Return the names of the entries of a section, without entries that have no example.

    `test_every_entry_has_an_example` fails for an entry without an example.
    """
    return [name for name in registries()[section] if name in EXAMPLES[section]]


def each(section: str) -> pytest.MarkDecorator:
    """Run a test once for each entry of a section, as its argument `name`, with an id such as "loss-poly"."""
    return pytest.mark.parametrize("name", names(section), ids=[f"{section}-{name}" for name in names(section)])


def each_setting(section: str, wanted: Callable[[str], bool] = lambda name: True) -> pytest.MarkDecorator:
    """Run a test once for each key of each entry of a section, with an id such as "loss-poly-alpha".

    The test gets the arguments `name` and `key`.

    Args:
        wanted: returns whether to include the entry of this name.
    """
    pairs = [(name, key) for name in names(section) if wanted(name) for key in EXAMPLES[section][name].settings]
    return pytest.mark.parametrize(("name", "key"), pairs, ids=[f"{section}-{name}-{key}" for name, key in pairs])


def settings(section: str, name: str) -> dict[str, Any]:
    """Return a copy of `settings` of the example of an entry."""
    return dict(EXAMPLES[section][name].settings)


def changes(section: str, name: str, key: str) -> list[dict[str, Any]]:
    """Return the changes of one key of an example that a test tries: dicts to update the example's settings with.

    Each must change what a run computes. The new values are, in this order of precedence: `other` of the example, all
    other options of a Literal, the opposite of a bool, the value in OTHERS, twice a number.
    """
    example = EXAMPLES[section][name]
    value, annotation = example.settings[key], keyword_annotations(registries()[section][name]).get(key)
    other = example.other.get(key)
    if isinstance(other, Mapping):
        return [dict(other)]
    if other is not None:
        return [{key: other}]
    if get_origin(annotation) is Literal:
        return [{key: option} for option in get_args(annotation) if option != value]
    if isinstance(value, bool):
        return [{key: not value}]
    if key in OTHERS:
        return [{key: OTHERS[key]}]
    if not isinstance(value, int | float):
        pytest.fail(advice(section, name, key, "has no other value"), pytrace=False)
    return [{key: 2 * value}]


def advice(section: str, name: str, key: str, problem: str) -> str:
    """Return a message that tells how to give an example a second value of `key`.

    Args:
        problem: why a second value is needed: "has no other value", or that the value changes nothing.
    """
    return (
        f"{section} {name!r}: the value {key} {problem}. Give a value that changes what is computed: add "
        f'`other=dict({key}=…)` to the line of {name!r} in EXAMPLES["{section}"] in tests/examples.py'
    )
