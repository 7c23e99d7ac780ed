"""Predictions as groups: the class that a first run predicts for an example is its environment."""

from imbalance.config.schema import Repeats
from imbalance.config.tags import INFERRED_GROUP_METRICS, tagged
from imbalance.data import Dataset
from imbalance.methods.context import FirstRun, GroupAssignment, cross_entropy_baseline


@tagged(
    first_run=lambda config: cross_entropy_baseline(config, config.groups.first_epochs),
    measures=INFERRED_GROUP_METRICS,
)
def predictions(dataset: Dataset, first: FirstRun, *, first_epochs: Repeats) -> GroupAssignment:
    """Infer groups: the combinations of an example's class and the class that a biased first run predicts for it.

    The first run trains by plain cross-entropy for `first_epochs` epochs. A short run learns what is easy, such as a spurious
    attribute. It misclassifies the examples that lack the attribute of their class. uLA and correct-n-contrast use such groups,
    and uLA selects its epoch by `val/inferred_group_balanced_accuracy`, which averages over them. The inference reads no groups
    of the data.

    Args:
        first_epochs: the number of epochs of the first run.
    """
    splits = {name: getattr(dataset, name).targets for name in ("train", "val", "test")}
    return GroupAssignment({name: first.logits(name, targets).argmax(1) for name, targets in splits.items()})
