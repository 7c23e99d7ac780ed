"""Data that a program passes: tensors, arrays and torch data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch

import imbalance
from imbalance.config.resolve import load
from imbalance.data import DATASETS, as_dataset
from imbalance.data import load as load_data
from imbalance.data.tables.columns import frame_columns
from imbalance.errors import BadInput


class Examples(list, torch.utils.data.Dataset):
    """A map-style torch data set of the examples of a list."""


def parts(n=12, groups=False, dtype=torch.float32):
    def one(seed):
        inputs = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
        targets = torch.arange(n) % 3
        return (inputs, targets, targets // 2) if groups else (inputs, targets)

    return {name: one(seed) for seed, name in enumerate(("train", "val", "test"))}


def test_tensors_arrays_and_torch_data_sets_are_the_same_data():
    data = parts(groups=True)
    ours = as_dataset(data, group_names=("a", "b"))
    arrays = as_dataset({name: tuple(np.asarray(v) for v in values) for name, values in data.items()})
    of_torch = as_dataset({name: torch.utils.data.TensorDataset(*values) for name, values in data.items()})
    for other in (arrays, of_torch):
        for name in ("train", "val", "test"):
            one, two = getattr(ours, name), getattr(other, name)
            assert torch.equal(one.inputs, two.inputs) and torch.equal(one.groups, two.groups)
    assert ours.class_names == ("0", "1", "2") and ours.group_names == ("0, a", "1, a", "2, b")
    assert as_dataset(parts()).group_names == ("0", "1", "2")
    assert as_dataset(ours) is ours


def test_groups_that_mix_classes_are_crossed_with_the_classes():
    """A group is class × attribute, as for a file: weights by an attribute alone are blind to the classes."""
    attribute = torch.tensor([0, 1] * 6)
    data = {name: (inputs, targets, attribute) for name, (inputs, targets) in parts().items()}
    crossed = as_dataset(data, ("x", "y", "z"), ("man", "woman"))
    assert crossed.group_names == ("x, man", "x, woman", "y, man", "y, woman", "z, man", "z, woman")
    assert torch.equal(crossed.val.groups, 2 * crossed.val.targets + attribute)
    nested = {name: (inputs, targets, 2 - targets) for name, (inputs, targets) in parts().items()}
    kept = as_dataset(nested, ("x", "y", "z"), ("a", "b", "c"))
    assert kept.group_names == ("a", "b", "c") and torch.equal(kept.test.groups, 2 - kept.test.targets)


@pytest.mark.parametrize(
    ("shift", "names", "message"),
    [
        (1, None, "^data: the targets are 1, 2, 3, but whole numbers are positions in class_names, from 0, and each must occur; "),
        (10**9, None, "^data: the targets are 1000000000, "),
        (1, ("a", "b", "c"), "^class_names: 3 names given, and the data has the label 3; whole numbers are positions in "),
        (0, ("a", "a", "b"), "^class_names: 'a' is given 2 times; give each label a name of its own$"),
    ],
)  # fmt: skip
def test_targets_that_are_no_positions_and_names_given_twice_are_refused(shift, names, message):
    data = {name: (inputs, targets + shift) for name, (inputs, targets) in parts().items()}
    with pytest.raises(BadInput, match=message):
        as_dataset(data, names)
    text = {name: (inputs, targets.numpy().astype(str)) for name, (inputs, targets) in data.items()}
    if names is None:  # the advice of the message
        assert as_dataset(text).class_names == tuple(str(i + shift) for i in range(3))
    elif len(set(names)) < 3:
        with pytest.raises(BadInput, match=message):
            as_dataset(text, names)


def test_groups_may_be_any_whole_numbers_and_their_names_occur_once():
    data = {name: (inputs, targets, 10**9 * (targets // 2) + 3) for name, (inputs, targets) in parts().items()}
    made = as_dataset(data)
    assert made.group_names == ("0, 3", "1, 3", "2, 1000000003")
    nested = {name: (inputs, targets, 5 * targets) for name, (inputs, targets) in parts().items()}
    made = as_dataset(nested)
    assert made.group_names == ("0", "5", "10") and torch.equal(made.val.groups, made.val.targets)
    with pytest.raises(BadInput, match="^group_names: 'g' is given 2 times"):
        as_dataset(nested, group_names=("g", "g"))


def changed(change):
    data = parts()
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([1, 2], "list given; a Dataset, or a mapping with exactly the keys train, val, test, is needed"),
        (changed(lambda d: d.pop("val")), "a mapping with train, test given"),
        (
            changed(lambda d: d.update(val=(torch.zeros(12, 4), torch.arange(12) % 3))),
            r"data\['val'\]: inputs have shape and type \(\(4,\)",
        ),
        (changed(lambda d: d.update(val=(torch.zeros(12, 5), torch.rand(12)))), "targets must be 12 whole numbers"),
        (changed(lambda d: d.update(val=(torch.zeros(12, 5), torch.arange(11)))), "targets must be 12 whole numbers"),
        (changed(lambda d: d.update(val=(torch.zeros(12, 5).long(), torch.arange(12)))), "int64 of shape"),
        (changed(lambda d: d.update(val=(torch.full((12, 5), torch.nan), torch.arange(12)))), "not finite"),
        (changed(lambda d: d.update(val=(torch.zeros(12, 0), torch.arange(12)))), r"\(12, 0\); each example needs"),
        (
            changed(lambda d: d.update(val=(torch.eye(12, 5).to_sparse(), torch.arange(12)))),
            r"val.*a sparse tensor given",
        ),
        (
            changed(lambda d: d.update(val=(torch.eye(12, 5, device="meta"), torch.arange(12)))),
            r"val.*a meta tensor given",
        ),
        (
            changed(lambda d: d.update(val=(torch.eye(12, 5), torch.arange(12, device="meta")))),
            r"val.*a meta tensor given",
        ),
        (
            changed(lambda d: d.update(val=(np.eye(12, 5)[::-1] * 1e39, torch.arange(12)))),
            "row 7 of the inputs .* too large for float32",
        ),
        (
            {
                name: (torch.zeros(12, 8, 9, 3, dtype=torch.uint8), torch.arange(12) % 3)
                for name in ("train", "val", "test")
            },
            r"data\['train'\]: .*shape \(12, 8, 9, 3\), whose last axis seems to be the channels",
        ),
        ({}, "data: an empty mapping given; a Dataset"),
        (changed(lambda d: d.update(test=(*d["test"], d["test"][1]))), r"data\['train'\]: no groups given"),
        (changed(lambda d: d.update(test=3)), r"data\['test'\]: int given; a tuple or a map-style torch data set"),
    ],
)
def test_what_is_wrong_with_given_data_is_one_line(data, reason):
    with pytest.raises(BadInput, match=reason):
        as_dataset(data)


class Stream(torch.utils.data.IterableDataset):
    """A data set of torch that can only be read in its order."""

    def __iter__(self):
        return iter([(torch.zeros(3), 0)])


class HuggingFaceStream:
    """The methods of datasets.IterableDataset that matter here."""

    column_names = ("text", "label")

    def __iter__(self):
        return iter([{"text": "a", "label": 0}])


@pytest.mark.parametrize(
    "stream",
    [Stream(), HuggingFaceStream(), torch.utils.data.DataLoader([1, 2]), (row for row in [(torch.zeros(3), 0)])],
    ids=["torch", "hugging face", "loader", "generator"],
)
def test_data_that_can_only_be_read_in_their_order_are_refused_with_what_to_type(config, stream, monkeypatch):
    what = type(stream).__name__
    said = (
        f"data: {what} given, which is read from its first example to its last, .*config.data.name='arrays' or 'text'"
    )
    for data in (stream, {"train": stream, "val": stream, "test": stream}):
        with pytest.raises(BadInput, match=said):
            as_dataset(data)
        for table in ({}, {"target": "label"}):
            with pytest.raises(BadInput, match=said):
                imbalance.run(config, data=data, **table)
    monkeypatch.setitem(DATASETS, "own_stream", lambda: stream)
    with pytest.raises(BadInput, match=said):
        load_data({"name": "own_stream"}, ".", 0)


def test_a_run_takes_the_data_of_a_program_and_says_so(config):
    """It is trained, evaluated and loaded like any other, and cannot be run from its config alone."""
    data, directory = parts(n=30), Path(config.work_dir) / "given"
    config.model = dict(name="linear", init="default")
    result = imbalance.run(config, directory=directory, data=data)
    assert result.directory == directory
    assert load(directory / "config.json").data.to_dict() == {"name": "in_memory"} and config.data.name == "digits"
    with np.load(directory / "predictions" / "test.npz") as saved:
        expected = torch.from_numpy(saved["logits"]).softmax(1).numpy()
    found = imbalance.load(directory).predict(data["test"][0])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert imbalance.run(config, directory=directory, data=data).score == result.score
    with pytest.raises(
        BadInput, match="config.data.name: 'in_memory' means data that a program passed to imbalance.run"
    ):
        imbalance.run(directory / "config.json", directory=directory.with_name("again"))


def test_the_first_run_of_two_has_the_data_of_the_program_too(config):
    config.model = dict(name="linear", init="default")
    config.weights = dict(name="just_train_twice", first_epochs=1, upweight=5.0)
    directory = Path(config.work_dir) / "given"
    imbalance.run(config, directory=directory, data=parts(n=30))
    assert (directory / "first" / "summary.json").is_file()


def test_other_data_of_a_program_do_not_go_on_in_the_directory(config):
    config.model = dict(name="linear", init="default")
    directory, data = Path(config.work_dir) / "given", parts(n=30)
    imbalance.run(config, directory=directory, data=data)
    data["val"] = (data["val"][0] + 1, data["val"][1])
    with pytest.raises(BadInput, match=r"these are not the data that .*summary.json was made from \(val"):
        imbalance.run(config, directory=directory, data=data)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_masked_arrays_are_refused(place):
    """NumPy drops the mask, so that training would read the values under it."""
    data = parts(groups=True)
    values = np.ma.masked_array(data["val"][place], mask=False)
    data["val"] = tuple(values if i == place else part for i, part in enumerate(data["val"]))
    as_dataset(data)
    values[3] = np.ma.masked
    kind = ("inputs", "targets", "groups")[place]
    with pytest.raises(BadInput, match=rf"^data\['val'\]: {kind}: a masked array given; .* fill the masked ones"):
        as_dataset(data)
    rows = [(np.ma.masked_array([1.0, 2.0], [False, True]), 0), (np.zeros(2), 1)]
    with pytest.raises(BadInput, match="a masked array given"):
        as_dataset(dict.fromkeys(data, Examples(rows)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.clone])
def test_labels_of_every_whole_type_are_the_same(dtype, kind):
    labels = torch.arange(12) % 2
    data = {name: (inputs, kind(labels.to(dtype))) for name, (inputs, _) in parts().items()}
    assert torch.equal(as_dataset(data).val.targets, labels)
    with pytest.raises(BadInput, match="targets must be 12 whole numbers"):
        as_dataset(data | {"val": (data["val"][0], torch.full((12,), 2**64 - 1, dtype=torch.uint64))})


def test_inputs_with_a_gradient_or_of_bfloat16_are_read():
    for dtype, change in ((torch.float32, torch.Tensor.requires_grad_), (torch.bfloat16, torch.clone)):
        data = {name: (change(inputs), targets) for name, (inputs, targets) in parts(dtype=dtype).items()}
        read = as_dataset(data).train.inputs
        assert read.dtype == torch.float32 and not read.requires_grad
        assert torch.equal(read, parts(dtype=dtype)["train"][0].float())


def test_a_target_needs_data_frames(config):
    with pytest.raises(BadInput, match=r"given with target, which need a data frame .* not a tuple; leave out target"):
        imbalance.run(config, data=parts(), target="y")


def test_no_command_that_reads_files_is_named_for_data_in_memory():
    inputs, targets = np.zeros((6, 2), np.float32), np.array([0, 1] * 3)
    data = {"train": (inputs, targets), "val": (inputs, targets + 2), "test": (inputs, targets)}
    with pytest.raises(BadInput, match=r"^data: the train split has no example of class '2'; .* \(and \d more\)$"):
        as_dataset(data)


@pytest.mark.parametrize("value", [[1], (1, 2), {"a": 1}, {1}, np.zeros(2)])
def test_a_cell_of_a_frame_is_a_single_value(value):
    column = np.empty(12, object)
    column[:] = [value, *["a"] * 11]
    frame = {"x": np.arange(12.0), "mixed": column, "y": np.array(["p", "q"] * 6)}
    with pytest.raises(BadInput, match=f"^data frame: column 'mixed' has values of type {type(value).__name__}; a row"):
        frame_columns(frame)


def test_each_fold_of_a_cross_validation_has_a_run_directory_of_its_own(config, tmp_path):
    """Without a name; the same data again are the same run, and a directory with other data is refused by name."""
    config.model, config.work_dir = dict(name="linear", init="default"), str(tmp_path)
    config.trainer.epochs = 1
    x, y = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32), np.arange(30) % 2
    rows = np.split(np.arange(30), 3)
    folds = [
        dict(zip(("train", "val", "test"), ((x[part], y[part]) for part in rows[i:] + rows[:i]))) for i in range(3)
    ]
    directories = [imbalance.run(config, data=fold).directory for fold in [*folds, folds[0]]]
    assert len(set(directories)) == 3 and directories[0] == directories[3]
    with pytest.raises(BadInput, match="^data: these are not the data .*use another directory="):
        imbalance.run(config, data=folds[1], directory=directories[0])


@pytest.mark.parametrize("value", [None, np.nan])
def test_a_missing_attribute_is_no_group(value):
    frame = {"x": np.arange(12.0), "p": np.array([value, "u", "v"] * 4, dtype=object), "y": np.array(["s", "t"] * 6)}
    with pytest.raises(BadInput, match="p has no value in 4 of 12 rows; give these rows a value of their own"):
        imbalance.run("arrays_erm", data=frame, target="y", attributes=("p",))


@pytest.mark.parametrize(
    "overrides", [{"data.val_fraction": 0.3, "data.attributes": ("s",)}, {"data": {"name": "digits"}}]
)
def test_overrides_that_the_passed_data_would_ignore_are_refused(tmp_path, overrides):
    with pytest.raises(BadInput, match=f"overrides: {', '.join(overrides)} given beside data="):
        imbalance.run("arrays_erm", overrides, data=parts(n=30), directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
