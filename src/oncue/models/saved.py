"""The part of `Model` that goes into files and comes out of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oncue.checkpoints.snapshot import Snapshot


class Saved:
    """`save`, `save_weights`, `load_weights`, `to_json` and `get_compile_config`; see `oncue.saving` for the formats."""

    def save(
        self, filepath: str | os.PathLike[str], overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Save the whole model; arguments and errors as those of `oncue.saving.save_model`."""
        from oncue.saving.formats import save_model

        save_model(self, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: Any) -> None:
        """Save the weights; arguments and errors as those of `oncue.saving.save_weights`."""
        from oncue.saving.formats import save_weights

        save_weights(self, filepath, overwrite, **kwargs)

    def prepare_save(
        self, filepath: str | os.PathLike[str], *, weights_only: bool = False, snapshot: Snapshot | None = None
    ) -> Callable[[], None]:
        """Take all that a save needs, and return a function that writes it later; see `oncue.saving.prepare_save`.

        Raises:
            ValueError: Also when the model's class saves in its own way, which nothing is known of.
        """
        from oncue.saving.formats import prepare_save

        method = "save_weights" if weights_only else "save"
        if getattr(type(self), method) is not getattr(Saved, method):
            raise ValueError(
                f"`{type(self).__name__}.{method}` is a method of your own, so only it can save the model, and not in "
                "the background. Leave out `asynchronous=True`."
            )

        return prepare_save(self, filepath, weights_only=weights_only, snapshot=snapshot)

    def size_of_save(self, filepath: str | os.PathLike[str], *, weights_only: bool = False) -> int:
        """Return about how many bytes a save takes; see `oncue.saving.size_of_save`."""
        from oncue.saving.formats import size_of_save

        return size_of_save(self, filepath, weights_only=weights_only)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load weights; arguments and errors as those of `oncue.saving.load_weights`."""
        from oncue.saving.formats import load_weights

        load_weights(self, filepath, skip_mismatch, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return what `compile` was told as a dict that goes into JSON; None for a model that is not compiled.

        It is Keras's dict, and has the key "precision" besides where that is not 32 bits.
        """
        from oncue.saving.compile_config import compile_config

        config, precision = compile_config(self), getattr(self, "_precision", None)
        return config if config is None or precision is None else {**config, "precision": precision.name}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model as `get_compile_config` says, of Keras's models too.

        Args:
            config: The dict.

        Raises:
            ValueError: For a name that is not known.
        """
        from oncue.saving.compile_config import compile_from_config

        compile_from_config(self, config, precision=config.get("precision"))

    def to_json(self, **kwargs: Any) -> str:
        """Return the architecture as JSON, for `models.model_from_json`.

        Args:
            **kwargs: Arguments of `json.dumps`, such as `indent`.
        """
        import json

        from oncue.saving.model_config import model_config

        return json.dumps(model_config(self), **kwargs)


def model_from_json(json_string: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a model with fresh weights from what `model.to_json()` returned.

    Args:
        json_string: The JSON.
        custom_objects: Your own classes and functions by name.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: For text that is no configuration of a model, or names what is not known.

    Example:
        >>> from oncue import Sequential, layers
        >>> model_from_json(Sequential([layers.Input((2,)), layers.Dense(3)]).to_json()).count_params()
        9
    """
    from oncue.saving import guard
    from oncue.saving.model_config import model_from_written

    config = guard.read_json(json_string, "json_string")
    config.pop("compile_config", None)
    return model_from_written(config, "json_string", custom_objects)
