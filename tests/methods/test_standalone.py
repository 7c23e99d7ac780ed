"""The parts of a method in a loop of one's own, without a config: checked when made, and the documentation's examples as they are."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import imported_by
from examples import each, names, settings
from helpers.jobs import free_port, run
from helpers.pages import blocks, page
from helpers.server import SERVER
from torch.utils.data import DataLoader, TensorDataset

from imbalance.config.registries import registries
from imbalance.config.schema import bind, keyword_annotations
from imbalance.errors import BadInput
from imbalance.methods.losses import LOSSES, Poly, VectorScaling
from imbalance.methods.objectives.reductions import CVaR
from imbalance.methods.samplers import SAMPLERS
from imbalance.methods.standalone import EpochSampler, example_weights
from imbalance.methods.weights import WEIGHTS
from imbalance.utils.seeds import generator

TARGETS = torch.tensor([0] * 60 + [1] * 12)
COUNTS = torch.bincount(TARGETS)


# Losses and objectives


@pytest.mark.parametrize(
    ("section", "name"),
    [(section, name) for section in ("loss", "objective") for name in names(section) if settings(section, name)],
    ids=lambda value: value,
)
def test_every_constructor_refuses_what_a_config_would(section, name):
    """nan fits no annotation of a number. To pass, put `@checked` above the class."""
    table = registries()[section]
    for key in settings(section, name):
        values = settings(section, name) | {key: float("nan")}
        provided = {"class_counts": COUNTS, "group_counts": COUNTS}
        with pytest.raises(BadInput, match=rf"^{table[name].__name__}: \w+: .* given; it should"):
            bind(table, {"name": name} | values, **provided)()


def test_a_constructor_says_what_is_wrong_with_which_value():
    with pytest.raises(BadInput, match=r"^Poly: alpha: -1.0 given; it should be greater than 0$"):
        Poly(alpha=-1.0, left="logistic")
    with pytest.raises(BadInput, match=r"^VectorScaling: tau: 'x' given; it should be a number$"):
        VectorScaling(COUNTS, gamma=0.1, tau="x")
    with pytest.raises(BadInput, match=r"^CVaR: level: 2 given; it should be less than or equal to 1$"):
        CVaR(level=2)
    with pytest.raises(TypeError, match="left"):
        Poly(alpha=1.0)
    with pytest.raises(TypeError, match="beta"):
        Poly(alpha=1.0, left="logistic", beta=1.0)


@each("loss")
def test_groups_are_optional_where_a_loss_does_not_read_them(name):
    loss = bind(LOSSES, {"name": name} | settings("loss", name), class_counts=COUNTS, group_counts=COUNTS)()
    logits, targets = torch.randn(8, 2), torch.arange(8) % 2
    if name == "vs_group":
        with pytest.raises(TypeError, match="groups"):
            loss(logits, targets)
    else:
        assert torch.equal(loss(logits, targets), loss(logits, targets, 1 - targets))


def test_help_names_every_value_that_a_part_takes():
    """`by`, which says whether classes or groups are meant, explains itself."""
    for path in ("loss", "objective", "sampler", "weights", "mix", "head", "model"):
        for name, part in registries()[path].items():
            function = part
            while isinstance(function, partial):
                function = function.func
            text = function.__doc__ or ""
            lacking = [key for key in keyword_annotations(part) if key != "by" and not re.search(rf"\b{key}\b", text)]
            assert text and not lacking, f"{path} {name}: {lacking}"


def test_importing_a_part_imports_neither_wandb_nor_torchvision():
    modules = imported_by(
        "import imbalance.methods.losses, imbalance.methods.objectives.registry, imbalance.methods.standalone"
    )
    assert not {"wandb", "torchvision", "accelerate", "sklearn", "matplotlib"} & modules


# Samplers


@each("sampler")
def test_a_sampler_draws_what_the_loop_would_draw(name):
    values = settings("sampler", name)
    values |= {"by": "class"} if "by" in values else {}
    sampler = EpochSampler(name, TARGETS, seed=3, epochs=4, **values)
    drawn = []
    for epoch in (0, 1, 2, 0):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
        assert len(sampler) == len(drawn[-1])
        of = dict(labels=lambda by: (TARGETS, COUNTS), targets=TARGETS, groups=TARGETS, powers=None, seed=3, epochs=4, epoch=epoch)  # fmt: skip
        expected = bind(SAMPLERS, {"name": name} | values, **of, generator=generator(3, "sampler", epoch))()
        assert drawn[-1] == expected.tolist()
    assert drawn[0] == drawn[3] != drawn[1]


def test_a_data_loader_takes_it():
    data = TensorDataset(torch.arange(len(TARGETS)), TARGETS)
    sampler = EpochSampler("undersample", TARGETS, by="class", redraw=False)
    batches = list(DataLoader(data, batch_size=8, sampler=sampler))
    assert torch.bincount(torch.cat([targets for _, targets in batches])).tolist() == [12, 12]


def test_processes_draw_disjoint_parts_of_one_epoch():
    one = EpochSampler("oversample", TARGETS, by="class", seed=1)
    parts = [EpochSampler("oversample", TARGETS, by="class", seed=1, rank=rank, world=7) for rank in range(7)]
    drawn = [list(part) for part in parts]
    assert {len(part) for part in drawn} == {len(one) // 7}
    assert [row for together in zip(*drawn) for row in together] == list(one)[: len(one) // 7 * 7]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: EpochSampler("balance", TARGETS), "sampler: 'balance' given; did you mean balanced?"),
        (
            lambda: EpochSampler("balanced", TARGETS),
            "sampler 'balanced': no argument given; pass exactly these arguments: by",
        ),
        (
            lambda: EpochSampler("balanced", TARGETS, by="class", redraw=True),
            "by, redraw given; pass exactly these arguments: by",
        ),
        (
            lambda: EpochSampler("balanced", TARGETS, by="kind"),
            "sampler 'balanced': by: 'kind' given; it should be 'class'",
        ),
        (lambda: EpochSampler("balanced", TARGETS, by="group"), "by='group' given, and no groups"),
        (lambda: EpochSampler("shuffle", TARGETS, rank=2, world=2), "rank=2, world=2 given"),
        (
            lambda: example_weights("residual", TARGETS, sampler=dict(name="within_class")),
            "sampler: the section of an annealed sampler is needed, such as dict(name='annealed_linear'",
        ),
        (
            lambda: example_weights("residual", TARGETS, sampler=dict(name="shuffle")),
            "sampler: the section of an annealed sampler is needed, such as dict(name='annealed_linear'",
        ),
        (
            lambda: example_weights("importance", TARGETS, by="class"),
            "weights 'importance': by given; pass exactly these arguments: by, exponent",
        ),
        (
            lambda: example_weights("importance", TARGETS, by="class", exponent=-1.0),
            "exponent: -1.0 given; it should be",
        ),
    ],
)
def test_what_is_wrong_is_one_line(call, words):
    with pytest.raises(BadInput) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)


# Weights


def test_weights_are_those_of_the_labels():
    found = example_weights("importance", TARGETS.numpy(), by="class", exponent=1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[TARGETS == 0].sum(), found[TARGETS == 1].sum())
    torch.testing.assert_close(found.mean(), torch.tensor(1.0))
    groups = torch.arange(len(TARGETS)) % 3
    with pytest.warns(UserWarning, match="^groups: a group has examples of several classes"):
        by_group = example_weights("importance", TARGETS.tolist(), groups, by="group", exponent=2.0)
    torch.testing.assert_close(by_group, torch.ones(len(TARGETS)))
    deferred = [example_weights("deferred", TARGETS, epoch=e, by="class", beta=0.9, start_epoch=2) for e in (1, 2)]
    assert deferred[0].unique().numel() == 1 and deferred[1].unique().numel() == 2
    predicted = torch.where(torch.arange(len(TARGETS)) < 5, 1 - TARGETS, TARGETS)
    logits = torch.nn.functional.one_hot(predicted)
    jtt = example_weights("just_train_twice", TARGETS, logits=logits, first_epochs=1, upweight=4.0)
    torch.testing.assert_close(jtt[0] / jtt[-1], torch.tensor(4.0))
    assert WEIGHTS.keys() >= {"importance", "deferred", "just_train_twice"}


# The documentation's examples


def examples() -> list[str]:
    """The programs of the page on own loops: the plain one, and that with accelerate."""
    return blocks(page("how-to/own-loop.md"), "python")[:2]


def test_the_plain_loop_of_the_documentation_learns():
    plain, _ = examples()
    names = {}
    exec(plain, names)
    targets, predicted = names["targets"], names["model"](names["inputs"]).argmax(1)
    recalls = [(predicted[targets == label] == label).float().mean() for label in (0, 1)]
    assert min(recalls) > 0.8


def with_accelerate() -> None:
    """In each of two processes: run the documentation's loop, noting which rows this one saw, and say so."""
    _, code = examples()
    seen, names = [], {}
    code = code.replace(
        "        optimizer.zero_grad()", "        seen.append((epoch, rows))\n        optimizer.zero_grad()"
    )
    code = code.replace("for x, y in loader", "for x, y, rows in loader").replace(
        "(inputs, targets)", "(inputs, targets, rows)"
    )
    code = code.replace("loader = DataLoader", "rows = torch.arange(len(targets))\nloader = DataLoader", 1)
    assert "rows) in" not in code and "seen.append" in code
    names.update(seen=seen, torch=torch)
    exec(code, names)
    drawn = [[i for epoch, rows in seen if epoch == e for i in rows.tolist()] for e in (0, 1)]
    weight = next(names["model"].parameters())
    print(json.dumps({"drawn": drawn, "weight": weight.flatten()[:3].tolist()}))
    sys.exit(0)


def test_the_readmes_loop_with_accelerate_divides_an_epoch_among_processes(tmp_path):
    port, outputs = str(free_port()), []
    processes = []
    for rank in range(2):
        outputs.append((tmp_path / f"out{rank}", tmp_path / f"err{rank}"))
        env = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        processes.append(SERVER.Process(target=run, args=(["example"], outputs[-1], env, with_accelerate)))
        processes[-1].start()
    for process in processes:
        process.join(100)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0], Path(outputs[0][1]).read_text()
    found = [json.loads(out.read_text().splitlines()[-1]) for out, _ in outputs]
    for epoch in (0, 1):
        first, second = (of["drawn"][epoch] for of in found)
        assert first and second and not set(first) & set(second)
    assert found[0]["drawn"][0] != found[0]["drawn"][1]
    assert found[0]["weight"] == found[1]["weight"]


class FilteredSeries(list):
    """Stand in for a Series of pandas whose rows were filtered: `series[0]` looks for the row label 0, which is gone."""

    def __getitem__(self, label):
        raise KeyError(label)

    def __array__(self, dtype=None, copy=None):
        return np.array(list(self), dtype)


def test_labels_of_a_filtered_series_and_of_a_read_only_array_are_taken(recwarn):
    expected = example_weights("importance", [0, 0, 1], by="class", exponent=1.0)
    read_only = np.array([0, 0, 1])
    read_only.flags.writeable = False
    for labels in (FilteredSeries([0, 0, 1]), read_only, np.array([0, 0, 1], dtype=">i4")):
        assert example_weights("importance", labels, by="class", exponent=1.0).equal(expected)
        assert list(EpochSampler("oversample", labels, labels, by="group", seed=1))
    assert not recwarn.list


def test_labels_that_are_texts_are_refused_with_the_call_that_numbers_them():
    for labels in (["cat", "dog"], np.array(["cat", "dog"]), FilteredSeries(["cat", "dog"])):
        with pytest.raises(
            BadInput, match=r"^targets: texts such as .*'cat'.* given; number them, as by numpy.unique\(targets"
        ):
            example_weights("importance", labels, by="class", exponent=1.0)


@pytest.mark.parametrize("name", ["targets", "groups"])
def test_masked_labels_are_refused(name):
    labels = {"targets": np.array([0, 1, 1]), "groups": np.array([0, 1, 1])}
    labels[name] = np.ma.masked_array(labels[name], [0, 0, 1])
    with pytest.raises(BadInput, match=f"^{name}: a masked array given"):
        example_weights("importance", **labels, by="class", exponent=1.0)


def test_an_epoch_with_fewer_rows_than_processes_is_refused():
    assert len(EpochSampler("shuffle", torch.zeros(5).long(), world=5, rank=4)) == 1
    with pytest.raises(BadInput, match="world=6 given, but epoch 0 has only 5 rows"):
        len(EpochSampler("shuffle", torch.zeros(5).long(), world=6))


def test_the_largest_seed_is_named():
    with pytest.raises(BadInput, match=r"an integer from 0 to 2\*\*63 - 1 is needed"):
        EpochSampler("shuffle", torch.zeros(5).long(), seed=2**70)
