"""Which methods a subclass of an optimizer may define: those that are called here, and none that Keras alone calls."""

from __future__ import annotations

from typing import Any

_UPDATE = "override `update_step(gradient, variable, learning_rate)`"
_APPLY = "override `apply(grads, trainable_variables)` and call `super().apply` with other gradients"
_INSTEAD = {
    "learning_rate": "give a `LearningRateSchedule`, or a function without arguments, as `learning_rate`",
    "iterations": "count in an attribute of another name",
    "save_own_variables": "make what belongs to the state by `add_variable`, and files have it",
    "load_own_variables": "make what belongs to the state by `add_variable`, and files have it",
    "stateless_apply": _APPLY,
    "get_updates": _UPDATE,
    "get_gradients": _APPLY,
    "minimize": _APPLY,
    "compute_gradients": _APPLY,
    "_compute_gradients": _APPLY,
    "_aggregate_gradients": _APPLY,
    "_transform_gradients": _APPLY,
    "_transform_unaggregated_gradients": _APPLY,
    "_clip_gradients": _APPLY,
    "_filter_empty_gradients": _APPLY,
    "_backend_apply_gradients": _APPLY,
    "_backend_update_step": _UPDATE,
    "_parallel_update_step": _UPDATE,
    "_resource_apply_dense": _UPDATE,
    "_resource_apply_sparse": _UPDATE,
    "_create_slots": "make variables in `build(variables)` by `add_variable_from_reference`",
    "_create_all_weights": "make variables in `build(variables)` by `add_variable_from_reference`",
    "_prepare_local": _UPDATE,
    "_apply_weight_decay": "decay in `update_step`, and leave `weight_decay` at None",
    "_use_weight_decay": "call `exclude_from_weight_decay` before `build`",
    "_get_current_learning_rate": "give a `LearningRateSchedule`, or a function without arguments, as `learning_rate`",
    "_update_model_variables_moving_average": "average in a callback, at the end of a batch",
    "_overwrite_model_variables_with_average_value": "override `finalize_variable_values(variables)`",
}
_WITHIN_A_STEP = ("assign", "assign_add", "assign_sub", "_get_variable_index")


def check_overrides(cls: type, by_steps: bool) -> None:
    """Refuse a subclass that defines what would never be called.

    Args:
        cls: The subclass.
        by_steps: Whether it has an `update_step` of its own.

    Raises:
        TypeError: When it does; with what to define instead.

    Example:
        >>> class Old:
        ...     def get_updates(self, loss, params):
        ...         return []
        >>> check_overrides(Old, by_steps=False)
        Traceback (most recent call last):
        ...
        TypeError: `Old.get_updates` would never be called: override `update_step(gradient, variable, learning_rate)` instead.
    """
    own: dict[str, Any] = dict(vars(cls))
    for name, instead in _INSTEAD.items():
        if name in own:
            raise TypeError(f"`{cls.__name__}.{name}` would never be called: {instead} instead.")
    for name in _WITHIN_A_STEP:
        if name in own and not by_steps:
            raise TypeError(
                f"`{cls.__name__}.{name}` would never be called: it is for an `update_step` of your own, and the built-in "
                f"ones update all weights together. Define `update_step(gradient, variable, learning_rate)` too."
            )
    if "update_step" in own and "make_torch_optimizer" in own:
        raise TypeError(f"`{cls.__name__}` defines `update_step` and `make_torch_optimizer`; keep one of them.")
