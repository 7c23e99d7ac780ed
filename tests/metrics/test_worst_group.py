"""The worst group's accuracy over batches, without torchmetrics; with it the same class is a `torchmetrics.Metric`."""

import runpy
import sys

import pytest
import torch

from imbalance.errors import BadInput
from imbalance.metrics import WorstGroupAccuracy, worst_group


def test_batches_add_up_and_reset_forgets_them():
    generator = torch.Generator().manual_seed(0)
    targets, groups = torch.randint(3, (2, 90), generator=generator)
    logits = torch.randn(90, 3, generator=generator) + 2 * torch.nn.functional.one_hot(targets, 3)
    right = (logits.argmax(1) == targets).float()
    metric = WorstGroupAccuracy(num_groups=4)  # group 3 has no example
    assert metric.compute().isnan()
    for part in torch.arange(90).split(32):
        metric.update(logits[part], targets[part], groups[part])
    expected = min(right[groups == group].mean().item() for group in range(3))
    assert metric.compute().item() == pytest.approx(expected)
    of_batch = metric(logits[:10].argmax(1), targets[:10], torch.zeros(10, dtype=torch.int64))
    assert of_batch.item() == pytest.approx(right[:10].mean().item())
    assert metric.counts.sum() == 100
    metric.reset()
    assert metric.counts.sum() == 0 and metric.compute().isnan()
    metric.update(torch.tensor([1]), torch.tensor([1]), torch.tensor([2]))
    assert metric.compute() == 1
    assert WorstGroupAccuracy(num_groups=1).compute().isnan()
    with pytest.raises(BadInput, match="num_groups=0 given"):
        WorstGroupAccuracy(num_groups=0)


def test_beside_torchmetrics_it_is_a_metric_of_torchmetrics(tmp_path, monkeypatch):
    (tmp_path / "torchmetrics.py").write_text("class Metric: pass")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    again = runpy.run_path(worst_group.__file__)
    assert again["Base"] is again["WorstGroupAccuracy"].__base__ and again["Base"].__module__ == "torchmetrics"
    sys.modules.pop("torchmetrics")


def test_groups_and_shapes_that_do_not_fit_are_refused_and_add_nothing():
    metric, labels = WorstGroupAccuracy(2), torch.tensor([0, 1])
    for groups, words in (
        (torch.tensor([0, 5]), "groups from 0 to 5 given; they must be 0 to 1"),
        (torch.tensor([-1, 0]), "groups from -1 to 0 given"),
        (torch.tensor([0.0, 1.0]), "groups of type torch.float32 given; integers"),
        (torch.tensor([[0], [1]]), r"of shapes \(2,\), \(2,\), \(2, 1\) given"),
    ):
        with pytest.raises(BadInput, match=words):
            metric.update(labels, labels, groups)
    with pytest.raises(BadInput, match="of shapes"):
        metric.update(labels, labels[:, None], labels)
    assert metric.counts.sum() == 0
    with pytest.raises(BadInput, match="one number with a fraction for each example"):
        metric.update(torch.tensor([0.2, 0.9]), labels, labels)
    assert metric.counts.sum() == 0
    with pytest.raises(BadInput, match="num_groups=2.5 given; it must be an integer"):
        WorstGroupAccuracy(2.5)


def test_an_example_with_nan_counts_as_wrong():
    metric = WorstGroupAccuracy(2)
    metric.update(torch.tensor([[torch.nan, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert metric.counts.tolist() == [[1, 0], [0, 1]]  # wrong and right in each group
    assert metric.compute() == 0
