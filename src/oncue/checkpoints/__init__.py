"""Files that a training run leaves: which of them are kept, and what is known of them. Never torch."""

from oncue.checkpoints.checkpoints import Checkpoints, NoSoundCheckpointError
from oncue.checkpoints.retention import KeepBest, KeepEvery, KeepLast

__all__ = ["Checkpoints", "KeepBest", "KeepEvery", "KeepLast", "NoSoundCheckpointError"]
