"""SSA: groups from predicted attributes; networks learn from the attributes of val and their own confident predictions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imbalance.config.experiment import Experiment
from imbalance.config.schema import Fraction, Positive, Probability, Repeats, checked
from imbalance.config.tags import INFERRED_GROUP_METRICS, Tags, tagged
from imbalance.data import Dataset
from imbalance.data.splits import Split, joined, stratified_split
from imbalance.errors import BadInput
from imbalance.methods.attributes import check_combinations, count_attributes
from imbalance.methods.batch import Batch, Inputs, Loss
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline
from imbalance.methods.margins import at_least_float32
from imbalance.methods.objectives.base import Objective, features_of, head_of
from imbalance.utils.seeds import derived_seed, generator

PARTS = 3  # of the training examples; each part gets its attributes from a network that is not trained on it


def attributes_in_val(dataset: Dataset) -> int:
    """Return the number A of attributes; the attribute of an example of group g is g mod A.

    Raises:
        BadInput: the groups are not the combinations of a class and an attribute, or the data set evaluates new classes.
    """
    subject, instead = "config.groups.name: 'ssa'", "use 'eiil', 'spare' or 'xrm', which need no attributes"
    if dataset.probe:
        raise BadInput(f"{subject} given, but the data set evaluates other classes than those of train; {instead}")
    attributes = count_attributes(subject, dataset.num_classes, dataset.num_groups, instead)
    check_combinations(subject, dataset.val.targets, dataset.val.groups, attributes, instead)
    return attributes


def attribute_data(dataset: Dataset, section: Mapping[str, Any], seed: int) -> Dataset:
    """Return the data set on which the networks of `AttributeNetworks` train: its classes are the attributes of `dataset`.

    Train has first all training examples, without attributes; training does not read their target, 0. Then train has a
    random part of val, stratified by group, with attributes. Val is the rest of val. An example of class y in `dataset` is
    in group 2y if it has no attribute, and in group 2y + 1 if it has one.

    Args:
        section: the section `config.objective` of the run, with `labelled_share`, the share of val that joins train.
    """
    attributes = attributes_in_val(dataset)
    rng = np.random.default_rng(derived_seed(seed, "labelled"))
    rest, labelled = stratified_split(dataset.val.groups.numpy(), section["labelled_share"], rng)
    if not len(labelled) or not len(rest):
        raise BadInput(
            f"config.groups.labelled_share: {section['labelled_share']} given, which leaves one part of val's "
            f"{len(dataset.val)} examples empty; use 0.5"
        )

    def relabelled(split: Split, has_attributes: bool) -> Split:
        targets = split.groups % attributes if has_attributes else torch.zeros_like(split.groups)
        return replace(split, targets=targets, groups=2 * split.targets + has_attributes, eval_group_mask=None)

    train = joined(relabelled(dataset.train, False), relabelled(dataset.val.subset(torch.from_numpy(labelled)), True))
    return replace(
        dataset,
        train=train,
        val=relabelled(dataset.val.subset(torch.from_numpy(rest)), True),
        test=relabelled(dataset.test, True),
        class_names=tuple(f"attribute {number}" for number in range(attributes)),
        group_names=tuple(
            f"{name}, attribute {known}" for name in dataset.class_names for known in ("unknown", "known")
        ),
        evaluation_names=(),
    )


def parts_of(examples: int, seed: int) -> Tensor:
    """Divide the N training examples at random into `PARTS` parts; return the (N,) numbers of their parts, from 0."""
    parts = torch.empty(examples, dtype=torch.long)
    parts[torch.randperm(examples, generator=generator(seed, "parts"))] = torch.arange(examples) % PARTS
    return parts


class Committee(nn.Sequential):
    """Several networks; `forward` returns all logits (B, M, K) in training mode.

    In evaluation mode `forward` returns for each example the logits (B, K) of the network that is least sure of its
    prediction. So an epoch scores well only if all networks do; the mean of the logits would hide an untrained network.
    """

    features: nn.Module
    head: nn.Module

    def __init__(self, *networks: nn.Module):
        super().__init__()
        first, *others = networks
        self.features, self.head, self.others = features_of(first), head_of(first), nn.ModuleList(others)

    def all_logits(self, inputs: Inputs) -> Tensor:
        """Return the logits (B, M, K) of the M networks."""
        return torch.stack([self.head(self.features(inputs)), *(network(inputs) for network in self.others)], dim=1)

    def forward(self, inputs: Inputs) -> Tensor:
        logits = self.all_logits(inputs)
        if self.training:
            return logits
        least_sure = logits.softmax(2).amax(2).argmin(1)
        return logits[torch.arange(len(logits), device=logits.device), least_sure]


@checked
class AttributeNetworks(Objective):
    """Train three networks to predict the attribute of an example, from labelled examples and confident predictions (SSA).

    Nam, Kim, Lee and Shin, "Spread Spurious Attribute: Improving Worst-group Accuracy with Spurious Attribute
    Estimation", ICLR 2022. The objective is for the first run of `config.groups.name="ssa"`, whose data set is that of
    `attribute_data`. Network k does not train on the k-th third of the examples without attributes. Each network minimises the
    sum of two means of cross-entropy: over the labelled examples of the batch, and over chosen other examples, whose
    targets are the predicted attributes. A group is a class with an attribute, for these examples with the predicted one.
    Let g be the group with the fewest labelled examples in train, and n_h the number of labelled examples of group h in the
    batch. All c examples of group g with a probability of at least `threshold` are chosen. Of each other group h, the
    n_g + c − n_h most confident examples are chosen. So labelled and chosen examples together are balanced by group.

    In the code of the package SpuCo, g is an attribute, the threshold is compared with logits, and the second mean is
    commented out. Metrics on train are meaningless, because most of train has no attributes.

    Args:
        threshold: the smallest probability of a chosen prediction of group g; 0.95 in the paper.
        labelled_share: the share of val that joins train; `attribute_data` reads it.
    """

    tags = Tags(batched=False, unmixed=True, data=attribute_data)
    columns = ("all_logits", "targets", "rows")
    parts: Tensor
    rarest: Tensor

    def __init__(
        self,
        targets: Tensor,
        groups: Tensor,
        num_classes: int,
        num_groups: int,
        seed: int,
        *,
        threshold: Probability,
        labelled_share: Fraction,
    ):
        super().__init__()
        self.threshold, self.attributes = threshold, num_classes
        self.pairs = num_classes * num_groups // 2
        labelled = (groups % 2 == 1).cpu()
        unlabelled = int((~labelled).sum())
        parts = torch.full((len(targets),), PARTS)  # labelled examples are in no part
        parts[:unlabelled] = parts_of(unlabelled, seed)
        pairs = groups.cpu() // 2 * num_classes + targets.cpu()
        counts = torch.bincount(pairs[labelled], minlength=self.pairs)
        self.register_buffer("parts", parts, persistent=False)
        self.register_buffer("rarest", counts.where(counts > 0, len(targets)).argmin(), persistent=False)

    def network(self, make: Callable[[], nn.Module]) -> nn.Module:
        return Committee(*(make() for _ in range(PARTS)))

    def terms(self, model: nn.Module, loss: Loss, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.inputs)
        mean = logits.mean(1)
        return {"losses": batch.losses(loss, mean), "logits": mean, "all_logits": logits}

    def forward(
        self, losses: Tensor, weights: Tensor, groups: Tensor, *, all_logits: Tensor, targets: Tensor, rows: Tensor
    ) -> Tensor:
        labelled, classes = groups % 2 == 1, groups // 2
        counts = (
            torch.zeros_like(weights[:1])
            .expand(self.pairs)
            .index_add(0, classes * self.attributes + targets, labelled.to(weights))
        )
        value = losses.new_zeros(())
        for part, logits in enumerate(at_least_float32(all_logits).unbind(1)):
            candidates = ~labelled & (self.parts[rows] != part)
            chosen, guesses = self.choose(logits.detach(), classes, candidates, counts)
            for examples, labels in ((labelled, targets), (chosen, guesses)):
                entropies = F.cross_entropy(logits, labels, reduction="none")
                value = value + (weights * entropies * examples).sum() / examples.sum().clamp(min=1)
        return value

    def choose(self, logits: Tensor, classes: Tensor, candidates: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B,) booleans, true for examples whose prediction is used as target, and the (B,) predicted attributes of all.

        Args:
            logits: (B, A) logits of one network for the A attributes.
            classes: (B,) classes of the examples.
            candidates: (B,) booleans, true for the examples that may be chosen.
            counts: (G,) numbers of labelled examples of each group in the batch.
        """
        confidence, guesses = logits.softmax(1).max(1)
        groups = classes * self.attributes + guesses
        rare = candidates & (groups == self.rarest) & (confidence >= self.threshold)
        limits = counts[self.rarest] + rare.sum() - counts
        order = torch.arange(len(groups), device=groups.device)
        surer = (confidence > confidence[:, None]) | ((confidence == confidence[:, None]) & (order < order[:, None]))
        ranks = (surer & candidates & (groups == groups[:, None])).sum(1)
        others = candidates & (groups != self.rarest) & (ranks < limits[groups])
        return rare | others, guesses

    def extra_outputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        assert isinstance(model, Committee)  # `network` builds it
        return {f"network {part}": logits for part, logits in enumerate(model.all_logits(inputs).unbind(1))}


def ssa_first_run(config: Experiment) -> dict[str, Any]:
    """Return the config of the first run of `ssa`, which trains the networks, as a dictionary."""
    groups = config.groups
    values = cross_entropy_baseline(config, groups.first_epochs)
    values["optim"]["lr"] = groups.lr
    values["sampler"] = dict(name="balanced", by="group")
    values["objective"] = dict(name="ssa", threshold=groups.threshold, labelled_share=groups.labelled_share)
    values["callbacks"]["select"] = "best"
    values["trainer"] |= dict(eval_every=1, eval_splits=("val",))
    return values


@tagged(first_run=ssa_first_run, measures=INFERRED_GROUP_METRICS)
def ssa(
    dataset: Dataset,
    seed: int,
    first: FirstRun,
    *,
    first_epochs: Repeats,
    lr: Positive,
    threshold: Probability,
    labelled_share: Fraction,
) -> GroupAssignment:
    """Infer groups: combinations of the class and an attribute, which networks trained on val's attributes predict.

    Nam, Kim, Lee and Shin, "Spread Spurious Attribute: Improving Worst-group Accuracy with Spurious Attribute
    Estimation", ICLR 2022. A first run trains three networks (`AttributeNetworks`). The train split is divided into thirds, and
    each third gets its attributes from the network that is not trained on it. Val keeps its own attributes. Test gets the
    attributes that the mean of the three networks predicts, for metrics only. The authors then train group DRO.

    In the first run, a batch has equally many examples of each class with and without attributes; the authors' batches are
    not balanced by class. All three networks are taken from the epoch with the best recall of the worst attribute on the
    held-out part of val. For this recall, the least sure network predicts each example. The inference reads
    the groups of val, and no groups of train.

    Args:
        first_epochs: the number of epochs of the networks; the paper trains 1,000 steps or more.
        lr: the learning rate of the networks; 0.001 in the paper.
        threshold: the smallest probability at which a prediction of the rarest group becomes a target; 0.95 in the paper.
        labelled_share: the share of val on which the networks train; the other examples select their epoch. 0.5 in the
            paper.
    """
    attributes = attributes_in_val(dataset)
    splits = {name: torch.zeros_like(getattr(dataset, name).targets) for name in ("train", "test")}
    parts = parts_of(len(dataset.train), seed)

    def logits(name: str) -> Tensor:
        """Return the (3, N, A) logits of the three networks for the N examples of a split."""
        return torch.stack(
            [first.logits(name, splits[name], f"network {part}")[: len(splits[name])] for part in range(PARTS)]
        )

    guesses = logits("train").argmax(2)
    return GroupAssignment(
        {
            "train": guesses.gather(0, parts[None]).squeeze(0),
            "val": dataset.val.groups % attributes,
            "test": logits("test").mean(0).argmax(1),
        }
    )
