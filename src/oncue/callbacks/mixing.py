"""MixingCallback: what MixUp and CutMix have in common, which mix each sample of a batch with another of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oncue.callbacks.callback import Callback
from oncue.core.numbers import finite, whole
from oncue.core.protocols import run_state_of

if TYPE_CHECKING:
    import numpy as np


class MixingCallback(Callback):
    """Draws, for each batch, which samples are mixed and how much of the other each gets.

    The draws of a batch follow from a seed and from how many batches were drawn for before, so that a run that is resumed draws
    what it would have drawn. Each process of a run mixes its own rows.

    Args:
        alpha: Both parameters of the beta distribution that the share is drawn from.
        probability: With which probability a batch is mixed.
        until_epoch: The index of the first epoch whose batches are left as they are; None to mix to the end.
        seed: A seed of its own; None to draw one when training begins.
    """

    state_fields = ("drawn_seed", "batches")

    def __init__(self, alpha: float, probability: float, until_epoch: int | None, seed: int | None) -> None:
        super().__init__()
        owner = type(self).__name__
        self.alpha = finite(owner, "alpha", alpha)
        self.probability = finite(owner, "probability", probability)
        if self.alpha <= 0:
            raise ValueError(f"`alpha` of {owner} must be a number above 0; got {alpha!r}.")
        if not 0 < self.probability <= 1:
            raise ValueError(f"`probability` of {owner} must be above 0 and at most 1; got {probability!r}.")
        self.until_epoch = None if until_epoch is None else whole(owner, "until_epoch", until_epoch, least=1)
        self.seed = None if seed is None else whole(owner, "seed", seed)
        self._reset()

    def _reset(self) -> None:
        self.drawn_seed = 0
        self.batches = 0
        self._over = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Draw a seed, the same on all processes, where none was given.

        Raises:
            ValueError: In a loop that doesn't ask for changed batches.
        """
        import numpy as np

        if run_state_of(self._run) is None:
            raise ValueError(
                f"{type(self).__name__} works in `fit` of oncue's models; this loop, around a {type(self.model).__name__}, "
                "doesn't ask callbacks to change its batches. Train with `oncue.Model(model)`, or mix in the loader."
            )
        self._reset()
        seed = self.seed if self.seed is not None else int(np.random.randint(1 << 31))
        self.drawn_seed = int(self.ranks.broadcast(seed))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop mixing when it is time."""
        over = self.until_epoch is not None and epoch >= self.until_epoch
        if over and not self._over and epoch == self.until_epoch:
            self._decided("note", "mixes_no_more", epochs=self.until_epoch)
        self._over = over

    def change_batch(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Return a batch with its samples mixed; the loop asks before each step.

        Args:
            x: Inputs.
            y: Targets.
            sample_weight: Factors for the loss of each sample, or None.

        Raises:
            ValueError: Where the samples can't be mixed.
        """
        import numpy as np

        if self._over:
            return x, y, sample_weight
        self._check(x, y)
        draws = np.random.default_rng((self.drawn_seed, self.batches, self.ranks.rank))
        self.batches += 1
        # All is drawn in any case: what follows doesn't depend on the probability.
        mixes = draws.random() < self.probability
        share = float(draws.beta(self.alpha, self.alpha))
        order = draws.permutation(len(first_of(y)))
        if not mixes:
            return x, y, sample_weight
        return self._mixed((x, y, sample_weight), share, order, draws)

    def _mixed(
        self, batch: tuple[Any, Any, Any], share: float, order: np.ndarray[Any, Any], draws: np.random.Generator
    ) -> tuple[Any, Any, Any]:
        """Return a batch of which each sample keeps a share, and gets the rest of the one that `order` puts there."""
        raise NotImplementedError(f"{type(self).__name__} must say how it mixes.")

    def _check(self, x: Any, y: Any) -> None:
        if y is None:
            raise ValueError(f"{type(self).__name__} mixes targets, and these data have none.")
        for what, part in (("targets", y), ("inputs", x)):
            for leaf in leaves_of(part):
                if not leaf.is_floating_point():
                    one_hot = " Give one-hot targets: `utils.to_categorical(y)`." if what == "targets" else ""
                    raise ValueError(
                        f"{type(self).__name__} mixes {what} that are numbers with a fraction; these are {leaf.dtype}.{one_hot}"
                    )


def leaves_of(part: Any) -> list[Any]:
    """Return the tensors in nested lists, tuples and dicts."""
    if part is None:
        return []
    if isinstance(part, dict):
        return [leaf for one in part.values() for leaf in leaves_of(one)]
    return [leaf for one in part for leaf in leaves_of(one)] if isinstance(part, (list, tuple)) else [part]


def first_of(part: Any) -> Any:
    """Return the first tensor in nested lists, tuples and dicts."""
    return leaves_of(part)[0]


def mapped(part: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested lists, tuples and dicts with each tensor changed; None stays.

    Example:
        >>> mapped({"a": [1, 2], "b": None}, lambda number: number * 10)
        {'a': [10, 20], 'b': None}
    """
    if part is None:
        return None
    if isinstance(part, dict):
        return {name: mapped(one, change) for name, one in part.items()}
    if isinstance(part, (list, tuple)):
        return type(part)(mapped(one, change) for one in part)
    return change(part)


def between(part: Any, share: float, order: Any) -> Any:
    """Return so much of each row, and the rest of the row that an order puts in its place.

    Args:
        part: Tensors, nested or None.
        share: How much of each row stays.
        order: The places of the others.
    """
    return mapped(part, lambda leaf: leaf * share + leaf[order] * (1 - share))
