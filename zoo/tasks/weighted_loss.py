"""Cross-entropy with class weights and label smoothing, and the settings of its probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.data.names import nfc, positions
from zoo.errors import UsageError, did_you_mean
from zoo.options.class_weights import ClassWeights
from zoo.options.option import raise_together


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy as torch computes it: a mean weighted by the class of each target.

    Args:
        class_weights: `[classes]`; None for equal weights.
        label_smoothing: share of the target that is spread evenly over all classes.
        ignore_index: target without a class.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None,
        label_smoothing: float,
        ignore_index: int = -100,
    ) -> None:
        weight = None if class_weights is None else torch.tensor(class_weights)
        super().__init__(weight, ignore_index=ignore_index, label_smoothing=label_smoothing)
        self.class_weights = None if class_weights is None else tuple(class_weights)

    def total_weight(self, targets: Tensor) -> float:
        """Return the sum of the weights of the targets, which the loss is divided by."""
        known = targets[targets != self.ignore_index].long()
        return float(len(known)) if self.weight is None else float(self.weight[known].sum())


@dataclass(frozen=True)
class LogisticProbe:
    """A head that can be solved by multinomial logistic regression on its features.

    Args:
        class_weight: `[classes]`, class weights of the loss; None for equal weights.
        label_smoothing: share of each target that is spread over all classes.
    """

    class_weight: Tensor | None = None
    label_smoothing: float = 0.0


def resolve_class_weights(
    given: ClassWeights | None, classes: Sequence[str], counts: Callable[[], Sequence[int]]
) -> list[float] | None:
    """Return the weight of each class; None for equal weights.

    Args:
        given: the option.
        classes: names in the order of the outputs.
        counts: returns the number of training targets of each class.

    Raises:
        UsageError: names that are not classes, all of them.
    """
    if given is None:
        return None
    if given.weights is None:
        return balanced(counts())
    index = positions(classes)
    unknown = [name for name, _ in given.weights if nfc(name) not in index]
    raise_together(
        [
            UsageError(
                f"--class-weights names {name!r}, which is no class of the data",
                did_you_mean(name, classes, f"the classes are {', '.join(classes[:10])}"),
            )
            for name in unknown
        ]
    )
    weights = [1.0] * len(classes)
    for name, weight in given.weights:
        weights[index[nfc(name)]] = weight
    return weights


def balanced(counts: Sequence[int]) -> list[float]:
    """Return weights inversely proportional to the counts, as `balanced` of scikit-learn.

    A class without targets, which the loss never weighs, gets the weight 1.
    """
    present = sum(count > 0 for count in counts)
    total = sum(counts)
    return [total / (present * count) if count else 1.0 for count in counts]
