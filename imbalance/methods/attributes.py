"""Attributes: groups that are the combinations of a class and an attribute, numbered class · A + attribute."""

from torch import Tensor

from imbalance.errors import BadInput


def count_attributes(subject: str, num_classes: int, num_groups: int, instead: str) -> int:
    """Return the number A of attributes; the attribute of an example of group g is g mod A.

    Args:
        subject: the config key and the method that needs attributes, for the message.
        instead: what the user can do, for the message.

    Raises:
        BadInput: the number of groups is not A times the number of classes, for an A of 2 or more.
    """
    if num_groups <= num_classes or num_groups % num_classes:
        raise BadInput(
            f"{subject} needs a group for each combination of a class and an attribute, so the number of groups must be a "
            f"multiple of the number of classes, at least twice it; this data set has {num_classes} classes and "
            f"{num_groups} groups; {instead}"
        )
    return num_groups // num_classes


def check_combinations(subject: str, targets: Tensor, groups: Tensor, num_attributes: int, instead: str) -> None:
    """Raise `BadInput` unless group g of every example belongs to class g // A, for A attributes.

    Without this check g mod A would be taken for an attribute that nobody gave, if each class has groups of its own.

    Args:
        subject: the config key and the method that needs attributes, for the message.
        targets, groups: (N,) the class and the group of each example.
        instead: what the user can do, for the message.
    """
    misplaced = groups // num_attributes != targets
    if misplaced.any():
        group, label = int(groups[misplaced][0]), int(targets[misplaced][0])
        raise BadInput(
            f"{subject} needs groups that are the combinations of a class and an attribute, numbered class · "
            f"{num_attributes} + attribute; group {group} must then have class {group // num_attributes}, but has an example "
            f"of class {label}; give the attribute of each example as its group, or {instead}"
        )
