"""Needs: what a callback may need of its model or of the loop, beside its place in the list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NEEDS: dict[str, str] = {
    "stop": "a loop that can be stopped",
    "weights": "the model's weights, to keep them and put them back",
    "numbers": "the numbers of the model's weights",
    "safetensors": "a file of the model's weights",
    "weights_h5": "a file of the model's weights as Keras lays them out",
    "whole_model": "a file of the whole model",
    "background_save": "to save the model in the background",
    "rate": "a learning rate that can be set",
    "batches": "batches that it can change before they are trained on",
    "batch_values": "the values of each batch",
    "run_state": "all that the loop needs to continue after an interruption",
    "around_validation": "a loop that tells when validation begins",
    "average": "a moving average of the weights that the optimizer can show",
}
"""Each need, and what it is in words."""

MEMBERS: dict[str, tuple[str, ...]] = {
    "stop": (),
    "weights": ("get_weights", "set_weights"),
    "safetensors": ("save_weights",),
    "weights_h5": ("save_weights",),
    "whole_model": ("save",),
    "rate": ("optimizer",),
}
"""For the needs that a model of the contract satisfies, the members of `oncue.core.contract.TrainedModel` that do."""


@dataclass(frozen=True)
class Lacks:
    """What a loop can't give to callbacks.

    Args:
        whose: The loop, as the subject of a sentence.
        instead: From each need that it can't satisfy to what to use instead, as sentences.

    Example:
        >>> lacks = Lacks("a while loop", {"stop": "End it yourself."})
        >>> lacks.refusal("EarlyStopping", "stop")
        'EarlyStopping needs a loop that can be stopped, which a while loop lacks. End it yourself.'
    """

    whose: str
    instead: Mapping[str, str]

    def refusal(self, owner: str, need: str) -> str:
        """Return the text that refuses a callback.

        Args:
            owner: The callback's class.
            need: What it needs.
        """
        return f"{owner} needs {NEEDS[need]}, which {self.whose} lacks. {self.instead[need]}"
