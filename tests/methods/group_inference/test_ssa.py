"""SSA: the choice of predictions against loops over its definition, and which labels it reads."""

from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn.functional import cross_entropy

from imbalance.config.experiment import validate
from imbalance.config.resolve import load
from imbalance.data import Dataset
from imbalance.data import load as load_data
from imbalance.data.images.stored_images import StoredImages
from imbalance.data.splits import Split, joined
from imbalance.errors import BadInput
from imbalance.methods.group_inference.ssa import (
    PARTS,
    AttributeNetworks,
    Committee,
    attribute_data,
    parts_of,
)
from imbalance.models import mlp
from imbalance.training.loop import train_in_memory

THRESHOLD = 0.6


def by_loops(method: AttributeNetworks, logits: Tensor, targets: Tensor, groups: Tensor, rows: Tensor) -> Tensor:
    """The objective of Nam et al., ICLR 2022, section 3, for a batch and unit weights, one example at a time."""
    total, batch = torch.zeros((), dtype=torch.float64), range(len(targets))
    labelled = [i for i in batch if groups[i] % 2]
    pairs = [(c, a) for c in range(2) for a in range(2)]
    counts = {g: sum((groups[i] // 2, targets[i]) == g for i in labelled) for g in pairs}
    rarest = pairs[method.rarest]
    for part in range(PARTS):
        total += sum(cross_entropy(logits[i, part], targets[i]) for i in labelled) / len(labelled)
        shares = logits[:, part].softmax(1)
        members: dict[tuple[int, int], list[int]] = {g: [] for g in pairs}
        for i in batch:
            if not groups[i] % 2 and method.parts[rows[i]] != part:
                members[int(groups[i]) // 2, int(shares[i].argmax())].append(i)
        chosen = [i for i in members[rarest] if shares[i].max() >= THRESHOLD]
        room = counts[rarest] + len(chosen)
        for g in pairs:
            if g != rarest:
                surest = sorted(members[g], key=lambda i: -shares[i].max())
                chosen += surest[: max(0, room - counts[g])]
        total += sum(cross_entropy(logits[i, part], shares[i].argmax()) for i in chosen) / max(1, len(chosen))
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_is_that_of_its_definition(seed):
    draw = torch.Generator().manual_seed(seed)
    known = torch.cat([torch.zeros(40), torch.ones(20)]).long()
    groups = 2 * torch.randint(2, (60,), generator=draw) + known
    targets = torch.where(known == 1, torch.rand(60, generator=draw) < 0.3, False).long()
    method = AttributeNetworks(targets, groups, 2, 4, seed, threshold=THRESHOLD, labelled_share=0.5)
    rows = torch.randperm(60, generator=draw)[:50]
    logits = 2 * torch.randn(50, PARTS, 2, dtype=torch.float64, generator=draw)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    columns = dict(all_logits=ours, targets=targets[rows], rows=rows)
    value = method(ours.sum((1, 2)), torch.ones(50, dtype=torch.float64), groups[rows], **columns)
    expected = by_loops(method, theirs, targets[rows], groups[rows], rows)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-13)
    value.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def digits() -> Dataset:
    section = dict(name="colored_digits", train_per_group=(50, 20, 10, 20), saturation=0.5, val_fraction=0.2)
    return load_data(section | dict(test_fraction=0.1), "", seed=0)


def test_its_networks_train_on_attributes_of_val_alone():
    """And each network leaves out a third of train, so that it predicts no example that it was trained on."""
    dataset = digits()
    data = attribute_data(dataset, dict(labelled_share=0.5), seed=0)
    assert len(data.train) - 100 + len(data.val) == len(dataset.val) and not data.train.targets[:100].any()
    known = data.train.groups % 2 == 1
    assert known.sum() == len(data.train) - 100 and known[100:].all()
    source = {int(i): int(g) for i, g in zip(dataset.val.indices, dataset.val.groups)}
    for split, rows in ((data.train, slice(100, None)), (data.val, slice(None))):
        groups = [source[int(i)] for i in split.indices[rows]]
        assert [g % 2 for g in groups] == split.targets[rows].tolist()
        assert [2 * (g // 2) + 1 for g in groups] == split.groups[rows].tolist()
    assert not set(data.train.indices[100:].tolist()) & set(data.val.indices.tolist())
    assert parts_of(100, 3).bincount().tolist() == [34, 33, 33]


def test_it_infers_colours_from_half_of_val_and_reads_no_group_of_train():
    config = load(ROOT / "configs" / "colored_digits_ssa.py")
    config.trainer.epochs, config.groups.first_epochs, config.groups.lr = 1, 8, 0.05
    config.model = ConfigDict(dict(name="mlp", hidden=(8,)))
    dataset = digits()
    without_groups = replace(dataset, train=replace(dataset.train, groups=torch.zeros(100, dtype=torch.long)))
    runs = [train_in_memory(validate(config), data).learner.dataset for data in (dataset, without_groups)]
    for split in ("train", "val", "test"):
        first, second = (getattr(run, split).inferred for run in runs)
        assert first.equal(second)
    right = (runs[0].train.inferred == dataset.train.groups).double().mean()
    assert right > 0.95 and runs[0].val.inferred.equal(dataset.val.groups)


def test_the_least_sure_network_is_evaluated():
    committee = Committee(*(mlp((3,), 2, hidden=(4,)) for _ in range(PARTS)))
    inputs = torch.randn(20, 3)
    every, evaluated = committee(inputs), committee.eval()(inputs)
    for logits, one in zip(every, evaluated):
        assert one.equal(min(logits, key=lambda z: z.softmax(0).max()))


def test_two_selections_from_one_store_are_joined():
    images = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    store = StoredImages(images.numpy(), torch.zeros(6).int().numpy(), torch.arange(6), torch.device("cpu"))
    rows = torch.arange(6)
    whole = Split(store, rows % 2, rows % 3, rows)
    for inputs in (store, images):
        split = replace(whole, inputs=inputs)
        both = joined(split.subset(torch.tensor([4, 1])), split.subset(torch.tensor([0])))
        assert torch.equal(both.inputs[torch.arange(3)], images[[4, 1, 0]])
        assert both.groups.tolist() == [1, 1, 0] and both.indices.tolist() == [4, 1, 0]


def test_data_without_attributes_are_refused():
    dataset = digits()
    splits = {
        name: replace(getattr(dataset, name), groups=getattr(dataset, name).targets)
        for name in ("train", "val", "test")
    }
    with pytest.raises(BadInput, match=r"'ssa' needs a group for each combination of a class and an"):
        attribute_data(replace(dataset, **splits, group_names=dataset.class_names), dict(labelled_share=0.5), 0)
    with pytest.raises(BadInput, match="config.groups.labelled_share: 0.0 given, which leaves one part"):
        attribute_data(dataset, dict(labelled_share=0.0), 0)
