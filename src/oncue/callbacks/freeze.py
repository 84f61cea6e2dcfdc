"""Freeze: layers whose weights stand still for some epochs."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.numbers import whole
from oncue.core.protocols import is_trainable, parts_of, run_state_of, set_trainable
from oncue.core.suggest import nearest


@builtin
class Freeze(Callback):
    """Keeps layers from being trained for some epochs: a pretrained backbone while a new head learns.

    What it froze is trained again from `until_epoch` on, and after the run; what was frozen before stays so. Frozen weights
    stand still, weight decay, momentum and averages included, and a batch normalization that is frozen stays in inference mode.
    The optimizer begins with nothing for weights that it hasn't trained before.

    Args:
        layers: Names of layers, or of modules of a torch module such as "encoder.blocks.0", one or several. `*` stands for
            anything: "encoder.*". What is inside a layer is frozen with it.
        until_epoch: The index of the epoch from which they are trained again; None for never in this run.
        from_epoch: The index of the first epoch in which they are frozen.

    Raises:
        ValueError: For an `until_epoch` that isn't after `from_epoch`; before the first step, for a name that no layer has, and
            for layers without weights.

    Example:
        >>> import numpy as np, oncue
        >>> from oncue import layers
        >>> model = oncue.Sequential([layers.Input((2,)), layers.Dense(3, name="body"), layers.Dense(1, name="head")])
        >>> model.compile("sgd", loss="mse")
        >>> freeze = Freeze("body", until_epoch=2)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[freeze])
        >>> for entry in history.journal.of("freeze"):
        ...     print(entry)
        epoch 1: Freeze: froze body: 9 numbers in 2 weights stand still
        epoch 3: Freeze: body is trained again: 9 numbers in 2 weights
    """

    state_fields = ("frozen",)

    def __init__(self, layers: str | Iterable[str], until_epoch: int | None = None, from_epoch: int = 0) -> None:
        super().__init__()
        names = [layers] if isinstance(layers, str) else list(layers) if isinstance(layers, Iterable) else []
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"`layers` of Freeze must be the name of a layer, or a list of names; got {layers!r}. Give `layer.name`."
            )
        self.layers = names
        self.from_epoch = whole("Freeze", "from_epoch", from_epoch)
        self.until_epoch = None if until_epoch is None else whole("Freeze", "until_epoch", until_epoch)
        if self.until_epoch is not None and self.until_epoch <= self.from_epoch:
            raise ValueError(
                f"`until_epoch` of Freeze is the first epoch in which the layers are trained again, so it must come after "
                f"`from_epoch`={self.from_epoch}; got {until_epoch!r}."
            )
        # What layers and weights were before they were frozen: whether they were trained, in their order.
        self.frozen: list[list[bool | None]] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look for the layers.

        Raises:
            ValueError: When one isn't there, or has no weights.
        """
        self.frozen = None
        self._found()
        if self.ranks.size > 1 and run_state_of(self._run) is None:
            raise ValueError(
                "Freeze can't be used on several processes in this loop: its DistributedDataParallel expects gradients of "
                "all weights that it began with. Use it in `fit` of oncue's models, or freeze before the module is wrapped."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Freeze the layers, or let them be trained again, when it is time."""
        over = self.until_epoch is not None and epoch >= self.until_epoch
        if self.frozen is None and epoch >= self.from_epoch and not over:
            parts, weights = self._found()
            before = [one.requires_grad for one in weights]
            self.frozen = [[is_trainable(part) for part in parts], before]
            for part in parts:
                set_trainable(part, False)
            for one in weights:
                one.requires_grad_(False)
            self._decided("freeze", "frozen", **self._counted(weights, before))
        elif self.frozen is not None and over:
            self._decided("freeze", "trained_again", **self._counted(*self._release()))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the layers be trained after the run, in a loop that calls no `close`, as Keras's."""
        if self._run is None:
            self.close()

    def close(self) -> None:
        """Let the layers be trained after the run: one that follows begins as this one did."""
        self._release()

    def _release(self) -> tuple[list[Any], list[bool | None]]:
        """Let be trained what is frozen; return the weights, and whether each was trained before."""
        if self.frozen is None:
            return [], []
        (parts, weights), (layers, before) = self._found(), self.frozen
        self.frozen = None
        # A layer sets those inside, which come after it.
        for part, was in zip(parts, layers, strict=True):
            set_trainable(part, was)
        for one, was in zip(weights, before, strict=True):
            one.requires_grad_(bool(was))
        return weights, before

    def _counted(self, weights: list[Any], before: list[Any]) -> dict[str, Any]:
        changed = [one for one, was in zip(weights, before, strict=True) if was]
        return {"layers": self.layers, "weights": len(changed), "numbers": sum(one.numel() for one in changed)}

    def _found(self) -> tuple[list[Any], list[Any]]:
        """Return the modules that the names stand for, those inside after those around them, and their weights."""
        parts = parts_of(self.model)
        inside: dict[int, Any] = {}
        found: dict[int, Any] = {}
        for name in self.layers:
            parts_found = [part for known, part in parts.items() if fnmatchcase(known, name)]
            if not parts_found:
                guess = nearest(name, parts)
                hint = "" if guess is None else f" Did you mean {guess!r}?"
                some = ", ".join(list(parts)[:20]) or "none"
                raise ValueError(f"Freeze finds no layer {name!r} in the model.{hint} There are: {some}.")
            weights = [one for part in parts_found for one in part.parameters()]
            if not weights:
                raise ValueError(f"Freeze finds no weights in {name!r}, so that there is nothing to freeze.")
            found.update({id(one): one for one in weights if one.is_floating_point() or one.is_complex()})
            inside.update({id(one): one for part in parts_found for one in part.modules()})
        return list(inside.values()), list(found.values())
