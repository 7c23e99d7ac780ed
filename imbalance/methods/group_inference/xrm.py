"""XRM: cross-risk minimisation, which finds groups in the mistakes of two networks, each trained on half of train."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Positive, Repeats
from imbalance.config.tags import INFERRED_GROUP_METRIC, Tags, tagged
from imbalance.data import Dataset
from imbalance.data.images.augment import uniforms
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline
from imbalance.methods.objectives.base import Objective, Pair, group_means
from imbalance.utils.seeds import derived_seed, generator

FLIP_RATE = "train/flip_rate"


class CrossRisk(Objective):
    """Two networks, each trained on half of train, that replace labels by confident predictions of the other network.

    Pezeshki, Bouchacourt, Ibrahim, Ballas, Vincent and Lopez-Paz, "Discovering Environments with XRM", ICML 2024,
    algorithm 1, as in the authors' code (github.com/facebookresearch/XRM). Each example is assigned to one network at
    random. A step minimises the sum over classes of the mean of w·ℓ over the examples with that label. The loss of an
    example is that of the network it is assigned to. Then the label becomes the class that the other network predicts,
    with probability (p − 1/K) · K / (K − 1), where p is the predicted probability.

    `train/flip_rate` is the share of labels that differ from those of the data. The authors choose settings by a high
    flip rate. The first network is evaluated. Reads no groups. This objective trains the first run of the groups "xrm";
    its networks are not meant to be used as classifiers.
    """

    tags = Tags(batched=False, measures=(FLIP_RATE,))  # it has state for every example
    columns = ("rows", "losses_per_label", "held_out")
    in_first_half: Tensor
    targets: Tensor
    labels: Tensor
    steps: Tensor

    def __init__(self, targets: Tensor, num_classes: int, seed: int):
        super().__init__()
        self.num_classes, self.seed = num_classes, derived_seed(seed, "flips")
        in_first_half = torch.rand(len(targets), generator=generator(seed, "halves")) < 0.5
        self.register_buffer("in_first_half", in_first_half, persistent=False)  # true: the first network trains on it
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("labels", targets.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Pair(make(), twin=make())

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        first, twin = model(batch.inputs)
        in_first_half = self.in_first_half[batch.rows][:, None]
        held_in, held_out = first.where(in_first_half, twin), twin.where(in_first_half, first)
        every_label = torch.arange(self.num_classes, device=batch.targets.device)[:, None].expand(-1, len(batch.rows))
        return {
            "losses": batch.losses(loss, held_in),
            "logits": held_in,
            # Micro-batches compute the columns twice, and `forward` changes labels in between, so take all labels.
            "losses_per_label": torch.stack(
                [batch._replace(targets=t).losses(loss, held_in) for t in every_label], dim=1
            ),
            "held_out": held_out.detach(),
        }

    def forward(
        self,
        losses: Tensor,
        weights: Tensor,
        groups: Tensor,
        *,
        rows: Tensor,
        losses_per_label: Tensor,
        held_out: Tensor,
    ) -> Tensor:
        labels = self.labels[rows]
        label_losses = weights * losses_per_label.gather(1, labels[:, None]).squeeze(1)
        if self.training:
            confidence, guesses = held_out.double().softmax(1).max(1)
            chances = (confidence - 1 / self.num_classes) * self.num_classes / (self.num_classes - 1)
            flips = uniforms(self.seed, rows, self.steps.expand(len(rows)), 1).squeeze(1) < chances
            self.labels[rows] = torch.where(flips, guesses, labels)
            self.steps += 1
        means, _ = group_means(label_losses, labels, self.num_classes)
        return means.sum()

    def metrics(self) -> dict[str, float]:
        return {FLIP_RATE: (self.labels != self.targets).double().mean().item()}

    def extra_outputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        return {"twin": cast(nn.Module, model.twin)(inputs)}  # a submodule of `Pair`


def xrm_first_run(config: Experiment) -> dict[str, Any]:
    """Return the values of the first run, which trains the two networks."""
    values = cross_entropy_baseline(config, config.groups.first_epochs)
    values["optim"]["lr"] = config.groups.lr
    return values | {"objective": {"name": "xrm"}, "score": FLIP_RATE}


def cross_mistakes(logits: Tensor, twin: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) environments: 1 if at least one of the two networks is wrong, else 0."""
    return ((logits.argmax(1) != targets) | (twin.argmax(1) != targets)).long()


@tagged(first_run=xrm_first_run, measures=(INFERRED_GROUP_METRIC, FLIP_RATE))
def xrm(dataset: Dataset, first: FirstRun, *, first_epochs: Repeats, lr: Positive) -> GroupAssignment:
    """Cross the classes with two environments: the mistakes of two networks, and all other examples.

    Pezeshki et al., "Discovering Environments with XRM", ICML 2024. A first run trains the two networks (`CrossRisk`)
    with the model, batches and optimiser of this run, and a learning rate of its own. An example of train, val or test
    is in environment 1 if at least one network predicts another class than its label. The environments of test are only
    measured. The authors train group DRO with these groups, or sample by group, and select epochs by the worst inferred
    group of val. As in their code, the flip rate is that of the first run, but 0 if a class of train or val has one
    environment only. Reads no groups.

    Args:
        first_epochs: the number of epochs of the two networks. The paper has 5,001 steps for Waterbirds and 1,001
            for colored MNIST.
        lr: the learning rate of the two networks. The paper draws it log-uniformly from 1e-5 to 1e-3, and chooses
            by flip rate.
    """
    splits = {name: getattr(dataset, name).targets for name in ("train", "val", "test")}
    environments = {
        name: cross_mistakes(first.logits(name, targets), first.logits(name, targets, "twin"), targets)
        for name, targets in splits.items()
    }
    divided = all(
        len((2 * splits[name] + environments[name]).unique()) == 2 * len(splits[name].unique())
        for name in ("train", "val")
    )
    return GroupAssignment(environments, {FLIP_RATE: first.metrics[FLIP_RATE] if divided else 0.0})
