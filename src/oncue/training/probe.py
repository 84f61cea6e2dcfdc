"""The first batch: the outputs are learned from it, losses and metrics built on it, and wrong targets refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from oncue.core.protocols import inner_optimizer_of
from oncue.feeding.batch import Batch
from oncue.feeding.tensors import to_tensors
from oncue.layers.trial import Trial
from oncue.nested import map_leaves, named_leaves
from oncue.optimizers.torch_optimizer import TorchOptimizer
from oncue.training.meter import Meter

if TYPE_CHECKING:
    from oncue.training.plan import Forward, Plan
    from oncue.training.trainer import Trainer

_TARGETS = ("y", "label", "labels", "target", "targets")
"""Names under which data sets keep their targets, in small letters."""
# For inputs of so many shapes the outputs' shapes are remembered.
_MOST_SHAPES = 64


def probe(model: Trainer, plan: Plan, batch: Batch) -> None:
    """Run one batch in inference mode, to learn the shape of the outputs; random states stay as they were.

    Args:
        model: A built model.
        plan: Its plan, resolved; gets the outputs, and its losses and metrics are built.
        batch: The batch.
    """
    x, y, weight = batch
    y_pred = learn_outputs(model, plan, x, again=True)
    if plan.losses is not None and y is not None and not plan.losses.built:
        # The means of several outputs' losses must be there before the meter is made.
        plan.losses.build(y, y_pred)
    if plan.losses is not None and y is not None and any(leaf.ndim > 1 for _, leaf in named_leaves(weight, "")):
        # Whether weights of several axes fit, only the losses can tell.
        plan.losses.held = []
        plan.losses(y, y_pred, weight)
        plan.losses.held = None
    if plan.metrics is not None and y is not None:
        plan.metrics.update_state(y, y_pred, weight)
    plan.probed = True


def probe_validation(model: Trainer, plan: Plan, batch: Batch, y: Any) -> None:
    """Refuse validation data that can't be right now, rather than after an epoch of training.

    Args:
        model: A prepared model.
        plan: Its plan; gets the outputs.
        batch: The first batch of validation.
        y: The targets as they came; None when the batches bring them.

    Raises:
        ValueError: When the targets don't suit the losses.
    """
    plan.graphs.expect("test", batch)
    if "test_step" in plan.overridden:
        return
    targets = y if y is not None else batch[1]
    if targets is None:
        require_targets(model, batch[0], "fit", "validation_data")
    if not plan.probed:
        # Training has a step of its own, which may leave losses and metrics alone.
        probe(model, plan, batch)
        plan.meter = Meter(plan.named_metrics(model))
        model.reset_metrics()
    else:
        learn_outputs(model, plan, batch[0], again=True)
    check_targets(model, plan, targets)


def learn_outputs(model: Trainer, plan: Plan, x: Any, again: bool = False) -> Any:
    """Learn the outputs' shapes for inputs of these shapes; sequences of another length give others.

    Args:
        model: A prepared model.
        plan: Its plan; gets the outputs.
        x: The inputs.
        again: Whether to run the model even where it was run on such inputs before: it may have been changed.

    Returns:
        The outputs; without values where they were known.
    """
    shapes = tuple([(name, leaf.shape[1:]) for name, leaf in named_leaves(x, "") if isinstance(leaf, torch.Tensor)])
    if again:
        plan.known_outputs.clear()
    elif shapes in plan.known_outputs:
        plan.outputs = plan.known_outputs[shapes]
        return plan.outputs
    y_pred = plan.outputs = trial(model, plan.forward, x)
    if len(plan.known_outputs) >= _MOST_SHAPES:
        plan.known_outputs.clear()
    plan.known_outputs[shapes] = map_leaves(
        lambda leaf: torch.empty_like(leaf, device="meta") if isinstance(leaf, torch.Tensor) else leaf, y_pred
    )
    return y_pred


def trial(model: Trainer, forward: Forward, x: Any) -> Any:
    """Return a model's outputs in inference mode; what the model holds, modes and random states stay as they were.

    Args:
        model: A built model.
        forward: Its forward pass, or an eager step.
        x: The inputs; a batch for a step.
    """
    parallel = model._parallel
    with (
        torch.no_grad(),
        mode(model, False),
        Trial(*model._stepping_modules()),
        nullcontext() if parallel is None else parallel.resharding(),
    ):
        return forward(x)


def require_targets(model: Trainer, x: Any, method: str, source: str | None = None) -> None:
    """Refuse data without targets, where the loss needs some.

    Args:
        model: A compiled model.
        x: The inputs that came without targets.
        method: Who was called.
        source: The argument that they came in, where that isn't `x`.

    Raises:
        ValueError: When there is a loss given to `compile`, and the model computes it.
    """
    overridden = model._overridden()
    if model._plan.losses is None or overridden & {"compute_loss", "train_step"}:
        return
    missing = f"`{method}` needs targets `y`" if source is None else f"`{source}` needs targets: pass (x, y)"
    hint = ""
    if isinstance(x, dict) and len(x) > 1:
        target = next((key for key in x if str(key).lower() in _TARGETS), list(x)[-1])
        hint = (
            f" All of the dict ({', '.join(map(repr, x))}) was taken for inputs: let the data give pairs instead, such as "
            f"`(inputs, batch[{target!r}])`."
        )
    raise ValueError(f"{missing}, because the model was compiled with loss={model.loss!r}.{hint}")


def check_targets(model: Trainer, plan: Plan, y: Any) -> None:
    """Refuse targets that don't suit the losses, before the first step.

    Args:
        model: A prepared model.
        plan: Its plan, with losses.
        y: The targets: a batch's, or all; None where the model needs none.

    Raises:
        ValueError: When they don't suit the losses.
    """
    if plan.losses is not None and y is not None and plan.probed and "compute_loss" not in plan.overridden:
        plan.losses.check(to_tensors(y, "y"), plan.outputs)


def refuse_sparse_gradients(model: Trainer) -> None:
    """Refuse embeddings of torch whose gradients are sparse, which Keras's optimizers don't take.

    Args:
        model: The model, with an optimizer.

    Raises:
        ValueError: When there is one, and it is trained.
    """
    inner = inner_optimizer_of(model.optimizer)
    if model._parallel is None and isinstance(inner, TorchOptimizer):
        return
    for path, module in model.named_modules():
        embeds = isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag))
        if embeds and module.sparse and module.weight.requires_grad:
            who = f"{type(inner).__name__} doesn't"
            instead = ", or give an optimizer such as `torch.optim.SGD(model.parameters())`"
            if model._parallel is not None:
                who, instead = "Several processes don't", ""
            raise ValueError(
                f"{type(module).__name__}(sparse=True) at {path!r} gives sparse gradients. {who} take them: leave out "
                f"`sparse=True`{instead}."
            )


@contextmanager
def mode(module: torch.nn.Module, training: bool) -> Iterator[None]:
    """Put a module and all modules inside in training or inference mode for a block.

    Args:
        module: The module.
        training: Whether it is training mode.

    Example:
        >>> layer = torch.nn.Dropout()
        >>> with mode(layer, False):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    # A module inside may be in another mode than the one around it.
    before = [(part, part.training) for part in module.modules()]
    root = module.training
    if any(was != training for _, was in before):
        module.train(training)
    try:
        yield
    finally:
        if any(part.training != was for part, was in before):
            module.train(root)
            for part, was in before:
                part.training = was
