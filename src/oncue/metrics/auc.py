"""AUC: the area under the ROC curve, the precision-recall curve or the precision-recall-gain curve.

Definition: https://keras.io/api/metrics/classification_metrics/#auc-class. The interpolated area under the
precision-recall curve is that of Davis & Goadrich, The relationship between precision-recall and ROC curves, 2006;
precision-recall gain is that of Flach & Kull, Precision-recall-gain curves, 2015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.core.numbers import plain, whole_of
from oncue.core.suggest import unknown
from oncue.losses.shapes import as_tensor
from oncue.metrics.curve import Curve, even_thresholds
from oncue.metrics.mean import divide
from oncue.metrics.thresholds import count, evenly_spaced

_CURVES = ("ROC", "PR", "PRGAIN")
_SUMMATIONS = ("interpolation", "minoring", "majoring")


@builtin
class AUC(Curve):
    """The area under a curve, from counts at thresholds.

    Args:
        num_thresholds: The number of evenly spaced thresholds, more than 1.
        curve: "ROC", "PR" (precision over recall) or "PRGAIN".
        summation_method: "interpolation", "minoring" (the lower side of each step) or "majoring" (the upper).
        name: The name.
        dtype: The type of the result.
        thresholds: Thresholds of your own instead, from 0 to 1.
        multi_label: Compute an area for each label (column), then their mean.
        num_labels: The number of labels; only with `multi_label`.
        label_weights: Weights of the labels.
        from_logits: Whether predictions are logits (no sigmoid applied yet).

    Raises:
        ValueError: When an argument isn't as described.

    Example:
        >>> AUC(num_thresholds=3)([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])
        tensor(0.7500)
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if str(curve).upper() not in _CURVES:
            raise unknown("`curve`", curve, _CURVES)
        if str(summation_method).lower() not in _SUMMATIONS:
            raise unknown("`summation_method`", summation_method, _SUMMATIONS)
        count = whole_of(num_thresholds)
        if thresholds is None and (count is None or count <= 1):
            raise ValueError(f"`num_thresholds` must be a whole number above 1; got {num_thresholds!r}.")
        if num_labels and not multi_label:
            raise ValueError(f"`num_labels` is only for multi_label=True; got num_labels={num_labels!r} without it.")
        self.curve, self.summation_method = str(curve).upper(), str(summation_method).lower()
        self._own_thresholds = thresholds is not None
        inner = sorted(plain(thresholds)) if thresholds is not None else even_thresholds(count or 0)[1:-1]
        self.num_thresholds = len(inner) + 2
        self.thresholds = [0.0 - epsilon(), *inner, 1.0 + epsilon()]
        self._even = not self._own_thresholds or evenly_spaced([0.0, *inner, 1.0])
        self.multi_label, self.num_labels, self.from_logits = multi_label, plain(num_labels), from_logits
        self.label_weights = None if label_weights is None else torch.as_tensor(label_weights, dtype=self._kind)
        self._built = False
        if not multi_label:
            self._build((self.num_thresholds,))
        elif num_labels:
            self._build((self.num_thresholds, num_labels))

    def _build(self, shape: tuple[int, ...]) -> None:
        self._make(shape)
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Targets 0 and 1, shape (batch, ...).
            y_pred: Probabilities (or logits) of the same shape.
            sample_weight: None, or weights of the samples.
        """
        y_pred = as_tensor(y_pred, "y_pred")
        if not self._built:
            if y_pred.ndim != 2:
                raise ValueError(
                    f"multi_label=True needs predictions of shape (batch, labels); got {tuple(y_pred.shape)}."
                )
            self._build((self.num_thresholds, y_pred.shape[1]))
        if self.from_logits:
            y_pred = y_pred.sigmoid()
        found = count(
            y_true,
            y_pred,
            self.thresholds,
            self._even,
            self._kind,
            sample_weight=sample_weight,
            multi_label=self.multi_label,
            label_weights=None if self.multi_label else self.label_weights,
        )
        if self.multi_label:
            found = found._replace(positives=found.positives.unsqueeze(0), negatives=found.negatives.unsqueeze(0))
        self._add(found)

    def _points(self) -> tuple[Tensor, Tensor]:
        recall, _, precision = self._rates()
        if self.curve == "ROC":
            false_positive_rate = divide(
                self.false_positives.value, self.false_positives.value + self.true_negatives.value
            )
            return false_positive_rate, recall
        if self.curve == "PR":
            return recall, precision
        tp, fp, fn = self.true_positives.value, self.false_positives.value, self.false_negatives.value
        odds = divide(tp + fn, self.true_negatives.value + fp)
        none = tp == 0
        recall_gain = (1.0 - odds * divide(fn, tp)).masked_fill(none, 0.0).clamp(min=0.0)
        return recall_gain, (1.0 - odds * divide(fp, tp)).masked_fill(none, 1.0)

    def result(self) -> Tensor:
        """Return the area; with `multi_label` the (weighted) mean of the areas."""
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = self._interpolated_precision()
        else:
            x, y = self._points()
            if self.summation_method == "interpolation":
                heights = (y[:-1] + y[1:]) / 2.0
            else:
                pick = torch.minimum if self.summation_method == "minoring" else torch.maximum
                heights = pick(y[:-1], y[1:])
            areas = ((x[:-1] - x[1:]) * heights).sum(0)
        if not self.multi_label:
            return areas.to(self._kind)
        if self.label_weights is None:
            return areas.mean().to(self._kind)
        weights = self.label_weights.to(areas)
        return divide((areas * weights).sum(), weights.sum()).to(self._kind)

    def _interpolated_precision(self) -> Tensor:
        tp = self.true_positives.value
        positive = tp + self.false_positives.value
        gained, step = tp[:-1] - tp[1:], positive[:-1] - positive[1:]
        slope = divide(gained, step.clamp(min=0))
        intercept = tp[1:] - slope * positive[1:]
        both = (positive[:-1] > 0) & (positive[1:] > 0)
        ratio = torch.where(both, divide(positive[:-1], positive[1:].clamp(min=0)), torch.ones_like(step))
        area = slope * (gained + intercept * ratio.log())
        return divide(area, (tp[1:] + self.false_negatives.value[1:]).clamp(min=0)).sum(0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        config = {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": None if self.label_weights is None else self.label_weights.tolist(),
            "from_logits": self.from_logits,
        }
        return {**config, "thresholds": self.thresholds[1:-1]} if self._own_thresholds else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AUC:
        """Make a metric from what `get_config` returned, here or in Keras."""
        weights = config.get("label_weights")
        if isinstance(weights, dict):
            # Keras writes the weights as a tensor.
            config = {**config, "label_weights": weights["config"]["value"]}
        return cls(**config)
