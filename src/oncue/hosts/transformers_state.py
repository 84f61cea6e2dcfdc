"""InCheckpoints: the state of callbacks in the checkpoints of transformers' `Trainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from oncue.hosts import carried
from oncue.hosts.run import Adapter


class InCheckpoints(Adapter, TrainerCallback, ExportableState):
    """Keeps its state in the Trainer's checkpoints: text in `trainer_state.json`, tensors in a file beside it."""

    def __init__(self) -> None:
        self._tensors: dict[str, Any] = {}

    def find(self, args: Any, state: Any) -> None:
        """Find the state in the checkpoint that a run is resumed from, if it is.

        Raises:
            ValueError: When the Trainer has made this adapter again, without its callbacks; when the tensors are gone.
        """
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        if isinstance(saved, list) or args.restore_callback_states_from_checkpoint:
            raise ValueError(
                "Give the Trainer one `hosts.Transformers` with all callbacks of oncue, and leave out "
                "`restore_callback_states_from_checkpoint=True`: it makes callbacks again, and this one restores itself."
            )
        if saved is not None:
            found = saved["attributes"]
            self.load_state_dict({**found, "tensors": carried.read(_file(args, state)) if found["tensors"] else {}})

    def state(self) -> dict[str, Any]:
        """Return the state of all callbacks, as JSON can have it; the Trainer asks when it makes and saves a checkpoint."""
        saved = self.state_dict()
        self._tensors = saved["tensors"]
        return {"args": {}, "attributes": {**saved, "tensors": bool(self._tensors)}}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the tensors of the state, such as the best weights, into the checkpoint."""
        tensors, self._tensors = self._tensors, {}
        if tensors and _file(args, state).parent.is_dir():
            carried.write(_file(args, state), tensors)


def _file(args: Any, state: Any) -> Path:
    return Path(args.output_dir, f"checkpoint-{state.global_step}", "oncue_callbacks.safetensors")
