"""Cross-risk minimisation: groups found in what two networks, each trained on half of train, get wrong."""

from collections.abc import Callable

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Positive, Repeats
from imbalance.config.tags import INFERRED_GROUP_METRIC, Tags, tagged
from imbalance.data import Dataset
from imbalance.data.images.augment import uniforms
from imbalance.methods.batch import Batch, Loss
from imbalance.methods.context import FirstRun, GroupAssignment, plain
from imbalance.methods.objectives.base import Objective, Pair, group_means
from imbalance.utils.seeds import derived_seed, generator

FLIP_RATE = "train/flip_rate"


class CrossRisk(Objective):
    """Two networks, each trained on half of train, whose labels turn into what the other network is sure of.

    Pezeshki, Bouchacourt, Ibrahim, Ballas, Vincent and Lopez-Paz, "Discovering Environments with XRM", ICML 2024,
    algorithm 1, as in their code (github.com/facebookresearch/XRM): each example is assigned to one of the two at random.
    A step minimises the sum over classes of the mean of w·ℓ of the network that it is assigned to, over the batch's
    examples that have the class as their label now. Then a label becomes the class that the other network gives most,
    p of it, with probability (p − 1/K) · K / (K − 1). `train/flip_rate` is the share of labels that are no longer those
    of the data: a higher one is their rule to choose settings by. The first network is the one that is evaluated.
    Uses no groups. It is what the groups "xrm" are found with, and no classifier to use.
    """

    tags = Tags(batched=False, measures=(FLIP_RATE,))  # for its memory of every label
    columns = ("rows", "of_labels", "held_out")

    def __init__(self, targets: Tensor, num_classes: int, seed: int):
        super().__init__()
        self.num_classes, self.seed = num_classes, derived_seed(seed, "flips")
        mine = torch.rand(len(targets), generator=generator(seed, "halves")) < 0.5
        self.register_buffer("mine", mine, persistent=False)  # whose labels the first network learns
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("labels", targets.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Pair(make(), twin=make())

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        first, twin = model(batch.inputs)
        mine = self.mine[batch.rows][:, None]
        held_in, held_out = first.where(mine, twin), twin.where(mine, first)
        every_label = torch.arange(self.num_classes, device=batch.targets.device)[:, None].expand(-1, len(batch.rows))
        return {
            "losses": batch.losses(loss, held_in),
            "logits": held_in,
            # Of all labels: in parts this is computed twice, and between them `forward` changes labels.
            "of_labels": torch.stack([batch._replace(targets=t).losses(loss, held_in) for t in every_label], dim=1),
            "held_out": held_out.detach(),
        }

    def forward(
        self, losses: Tensor, weights: Tensor, groups: Tensor, *, rows: Tensor, of_labels: Tensor, held_out: Tensor
    ) -> Tensor:
        labels = self.labels[rows]
        of_each = weights * of_labels.gather(1, labels[:, None]).squeeze(1)
        if self.training:
            sure, guesses = held_out.double().softmax(1).max(1)
            chances = (sure - 1 / self.num_classes) * self.num_classes / (self.num_classes - 1)
            flips = uniforms(self.seed, rows, self.steps.expand(len(rows)), 1).squeeze(1) < chances
            self.labels[rows] = torch.where(flips, guesses, labels)
            self.steps += 1
        means, _ = group_means(of_each, labels, self.num_classes)
        return means.sum()

    def metrics(self) -> dict[str, float]:
        return {FLIP_RATE: (self.labels != self.targets).double().mean().item()}

    def extra_outputs(self, model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        return {"twin": model.twin(inputs)}


def twins(config: Experiment) -> ConfigDict:
    """The run of the two networks."""
    first = plain(config, config.groups.first_epochs)
    first.objective = ConfigDict({"name": "xrm"})
    first.optim.lr = config.groups.lr
    first.score = FLIP_RATE
    return first


def cross_mistakes(logits: Tensor, twin: Tensor, targets: Tensor) -> Tensor:
    """(N,) 1 where at least one of two networks is wrong, else 0."""
    return ((logits.argmax(1) != targets) | (twin.argmax(1) != targets)).long()


@tagged(first_run=twins, measures=(INFERRED_GROUP_METRIC, FLIP_RATE))
def xrm(dataset: Dataset, first: FirstRun, *, first_epochs: Repeats, lr: Positive) -> GroupAssignment:
    """What at least one of two networks gets wrong, and the rest, times the classes.

    Pezeshki et al., "Discovering Environments with XRM", ICML 2024: see `CrossRisk`, which a first run trains, with the
    same model, batches and optimiser but for the learning rate. Every example of train, val and test is put in one of
    two environments by whether either network is wrong about its label in the data; test's are only measured. With
    these they train group DRO, or sample by group, and select epochs by the worst inferred group of val. As in their code
    the flip rate is that of the first run, but 0 where a class of train or val is left in one piece. Uses no groups.

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
    pieces = [len((2 * splits[name] + environments[name]).unique()) for name in ("train", "val")]
    wholes = [len(splits[name].unique()) for name in ("train", "val")]
    divided = all(piece == 2 * whole for piece, whole in zip(pieces, wholes))
    return GroupAssignment(environments, {FLIP_RATE: first.metrics[FLIP_RATE] if divided else 0.0})
