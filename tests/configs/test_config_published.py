"""A config that quotes a published number has the published settings, or its docstring says what differs.

The rows of the paper's figures are held in test_experiments_paper_rows.py, the others here. What is written below was
read in the released code: kaidic/LDAM-DRW, google-research's logit_adjustment, kohpangwei/group_DRO,
PolinaKirichenko/deep_feature_reweighting, AndPotap/afr, minhto2802/dpe4subpop, dvlab-research/MiSLAS,
cool-xuan/Imbalanced_SAM.
"""

import ast
import re

import pytest
from conftest import CONFIG_FILES, ROOT

from imbalance.config.resolve import load
from imbalance.config.schema import build, flatten
from imbalance.experiments import figure3, figure4, figure5
from imbalance.training.schedules import SCHEDULES

LDAM_DRW = {
    "data.imbalance": "exp", "data.imbalance_ratio": 100.0, "data.augment": ("flip", "pad_crop"),
    "sampler.name": "shuffle", "mix.name": "none", "objective.name": "average", "head.name": "none",
    "optim.name": "sgd", "optim.lr": 0.1, "optim.momentum": 0.9, "optim.weight_decay": 2e-4,
    "trainer.epochs": 200, "trainer.batch_size": 128, "callbacks.select": "last",
}  # fmt: skip
WATERBIRDS = {
    "data.size": 224, "data.regenerated": False, "mix.name": "none", "loss.name": "cross_entropy",
    "weights.name": "uniform", "model.name": "resnet50", "model.pretrained": "imagenet", "model.frozen": False,
    "optim.name": "sgd", "optim.momentum": 0.9, "optim.schedule.name": "constant", "optim.schedule.warmup_epochs": 0,
}  # fmt: skip
DFR_BASE = WATERBIRDS | {
    "data.augment": ("random_resized_crop", "flip"), "sampler.name": "shuffle", "objective.name": "average",
    "optim.lr": 1e-3, "optim.weight_decay": 1e-3, "trainer.batch_size": 32, "trainer.epochs": 100,
    "callbacks.select": "last",
}  # fmt: skip
DPE = {
    "sampler.name": "resample", "sampler.by": "class", "sampler.exponent": 1.0, "weights.name": "uniform",
    "mix.name": "none", "loss.name": "cross_entropy", "objective.name": "average", "model.name": "resnet50",
    "model.pretrained": "IMAGENET1K_V2", "model.frozen": False, "optim.name": "sgd", "optim.lr": 1e-3,
    "optim.momentum": 0.9, "optim.weight_decay": 0.0, "optim.schedule.name": "constant", "trainer.batch_size": 128,
    "callbacks.select": "last", "head.name": "dpe", "head.by": "group", "head.members": 15, "head.epochs": 20,
    "head.batch_size": 256, "head.momentum": 0.9, "head.entropic_scale": 30.0, "head.norm_penalty": 10.0,
    "head.similarity_penalty": 5e5,
}  # fmt: skip
PLAIN = {"weights.name": "uniform", "loss.name": "cross_entropy", "model.name": "resnet32", "model.frozen": False}
# Of each config the number it quotes, the settings that are its source's, and words that say what differs.
PUBLISHED = {
    "cifar10lt_erm": ("70.4 %", LDAM_DRW | PLAIN, ("last epoch", "a tenth", "0.2023", "warm-up")),
    "cifar100lt_erm": ("38.3 %", LDAM_DRW | PLAIN, ("last epoch", "a tenth", "0.2023", "warm-up")),
    "cifar10lt_ldam_drw": (
        "77.0 %",
        LDAM_DRW | {
            "weights.name": "deferred", "weights.by": "class", "weights.beta": 0.9999, "weights.start_epoch": 160,
            "loss.name": "ldam", "loss.max_margin": 0.5, "loss.scale": 30.0,
            "model.name": "resnet32_cosine", "model.frozen": False,
        },
        ("last epoch", "a tenth", "0.2023", "warm-up", "mean of 1"),
    ),
    "cifar10lt_mislas": (
        "82.5 %",
        LDAM_DRW | PLAIN | {
            "mix.name": "mixup", "mix.alpha": 1.0, "optim.schedule.name": "step",
            "optim.schedule.milestones": (160, 180), "optim.schedule.factor": 0.1, "optim.schedule.warmup_epochs": 5.0,
            "head.name": "mislas", "head.by": "class", "head.head_smoothing": 0.3, "head.tail_smoothing": 0.0,
            "head.epochs": 10, "head.batch_size": 128, "head.lr": 0.1, "head.layer_factor": 0.5, "head.momentum": 0.9,
            "head.weight_decay": 2e-4,
        },
        ("no augmentation", "last epoch", "a tenth", "warm-up"),
    ),
    "cifar100lt_imb_sam": (
        "51.1 %",
        LDAM_DRW | PLAIN | {
            "optim.name": "imb_sam", "optim.lr": 0.01, "optim.weight_decay": 1e-3, "optim.radius": 0.05,
            "optim.tail_below": 20, "optim.schedule.name": "cosine", "optim.schedule.warmup_epochs": 0.0,
            "trainer.batch_size": 64,
        },
        ("count once", "ResNet-34", "last epoch", "a tenth"),
    ),
    "cifar10lt_logit_adjusted": (
        "77.7 %",
        {"loss.name": "logit_adjusted", "loss.tau": 1.0, "trainer.batch_size": 128, "optim.lr": 0.1,
         "optim.momentum": 0.9, "data.imbalance": "exp", "data.imbalance_ratio": 100.0},
        ("1,241", "Nesterov", "1e-4", "bottleneck", "two pixels"),
    ),
    "waterbirds_erm": ("74.9 ± 2.4 %", DFR_BASE | {"head.name": "none"}, ("crops are taken out of the middle",)),
    "waterbirds_dfr": (
        "92.9 ± 0.2 %",
        DFR_BASE | {"head.name": "dfr", "head.inverse_penalties": (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
                    "head.fits": 20},
        ("crops", "standardised by train"),
    ),
    "waterbirds_afr": (
        "90.4 ± 1.1 %",
        WATERBIRDS | {
            "data.augment": ("random_resized_crop", "flip"), "sampler.name": "shuffle", "optim.lr": 3e-3,
            "optim.weight_decay": 1e-4, "trainer.batch_size": 32, "trainer.epochs": 50, "head.name": "afr",
            "head.fraction": 0.2, "head.gamma": 10.0, "head.penalty": 0.0, "head.steps": 500, "head.lr": 0.01,
        },
        ("not of the best on val", "norm of 1", "crops differ"),
    ),
    "waterbirds_dpe": (
        "94.1 ± 0.4 %",
        DPE | {
            "data.size": 224, "data.regenerated": False, "data.augment": ("random_resized_crop", "flip"),
            "head.lr": 1e-3, "trainer.epochs": 400,
        },
        ("0.7 to 1 of the area instead of 0.08 to 1", "colours are not distorted", "last batch is not left out"),
    ),
    "celeba_dpe": (
        "90.3 ± 0.7 %",
        DPE | {
            "data.target": "Blond_Hair", "data.confounders": ("Male",), "data.train_fraction": 1.0,
            "data.val_fraction": 1.0, "data.test": "full", "data.augment": ("flip",), "head.lr": 5e-4,
            "trainer.epochs": 50,
        },
        ("not rotated", "the middle 178×178", "last batch is not left out"),
    ),
    "waterbirds_dro": (
        "91.4 ± 1.1 %",
        WATERBIRDS | {
            "data.augment": (), "sampler.name": "resample", "sampler.by": "group", "sampler.exponent": 1.0,
            "objective.name": "group_dro", "objective.step_size": 0.01, "objective.size_adjustment": 0.0,
            "objective.adjust_absent": False,
            "optim.lr": 1e-5, "optim.weight_decay": 1.0, "trainer.batch_size": 128, "trainer.epochs": 300,
            "head.name": "none", "callbacks.select": "best", "callbacks.monitor": "val/worst_group_accuracy",
        },
        ("group adjustments", "sample command"),
    ),
}  # fmt: skip


def docstring(name: str) -> str:
    return " ".join(ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text())).split())


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_those_of_the_source_and_what_differs_is_said(name):
    number, settings, differs = PUBLISHED[name]
    config = flatten(load(ROOT / "configs" / f"{name}.py"))
    assert {key: config.get(key) for key in settings} == settings
    text = docstring(name)
    assert number in text and all(words in text for words in differs), text


def test_every_config_that_quotes_a_published_number_is_held_to_its_source():
    quoting = {
        name
        for name in CONFIG_FILES
        if re.search(r"\d\d\.\d( ± \d\.\d)? %", docstring(name))
        and re.search(r"reported|reports|group-balanced test accuracy", docstring(name))
    }
    rows = {
        row.config for figure in (figure3, figure4, figure5) for of_data in figure.ROWS.values() for row in of_data.values()
        if not row.overrides
    }  # fmt: skip
    assert quoting == PUBLISHED.keys() | rows


@pytest.mark.parametrize("name", ["cifar10lt_erm", "cifar100lt_erm", "cifar10lt_ldam_drw"])
def test_the_learning_rate_is_that_of_ldam_s_code_from_the_end_of_warm_up_on(name):
    section = load(ROOT / "configs" / f"{name}.py").optim.schedule
    for epoch in range(5, 200):
        number = epoch + 1  # the code counts epochs from 1
        expected = 1e-4 if number > 180 else 0.01 if number > 160 else 1.0
        assert build(SCHEDULES, section, epoch=float(epoch), epochs=200) == pytest.approx(expected)
