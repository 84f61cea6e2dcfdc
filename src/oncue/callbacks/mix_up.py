"""MixUp: samples that are mixed with others, and their targets with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncue.callbacks.mixing import MixingCallback, between
from oncue.core.builtin import builtin

if TYPE_CHECKING:
    import numpy as np


@builtin
class MixUp(MixingCallback):
    """Trains on mixtures of samples: of each sample a share, and of another one of its batch the rest; targets likewise.

    The share is drawn for each batch from a beta distribution, as in "mixup: Beyond Empirical Risk Minimization" (Zhang,
    Cisse, Dauphin and Lopez-Paz, 2018, https://arxiv.org/abs/1710.09412), which uses an `alpha` from 0.1 to 0.4 for ImageNet
    and 1 for CIFAR-10. Factors of samples are mixed, too. Validation is as it is without.

    Targets must be numbers that can be mixed: one-hot for classes. The loss and the metrics of training are those of the
    mixtures. It changes batches on their device, before compiled steps as before eager ones, and waits for nothing. Each
    process of a run mixes its own rows.

    Args:
        alpha: Both parameters of the beta distribution: near 0 hardly anything is mixed, at 1 all shares are as likely.
        probability: With which probability a batch is mixed.
        until_epoch: The index of the first epoch whose batches are left as they are; None to mix to the end.
        seed: A seed of its own; None to draw one when training begins.

    Raises:
        ValueError: For an argument that can't be; before the first step, for inputs or targets that are whole numbers, and in
            a loop whose batches it can't change.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(3, activation="softmax")])
        >>> model.compile("sgd", loss="categorical_crossentropy")
        >>> x, y = np.ones((8, 2)), oncue.utils.to_categorical([0, 1, 2, 0, 1, 2, 0, 1])
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[MixUp(0.4, until_epoch=1)])
        >>> print(history.journal[0])
        epoch 2: MixUp: batches are left as they are from here on, after 1 epoch
    """

    def __init__(
        self, alpha: float = 0.2, probability: float = 1.0, until_epoch: int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(alpha, probability, until_epoch, seed)

    def _mixed(
        self, batch: tuple[Any, Any, Any], share: float, order: np.ndarray[Any, Any], draws: np.random.Generator
    ) -> tuple[Any, Any, Any]:
        x, y, weight = batch
        return between(x, share, order), between(y, share, order), between(weight, share, order)
