"""The files that a training run writes: which of them are kept, and records about them. Doesn't import torch."""

from oncue.checkpoints.checkpoints import Checkpoints, NoSoundCheckpointError
from oncue.checkpoints.retention import KeepBest, KeepEvery, KeepLast

__all__ = ["Checkpoints", "KeepBest", "KeepEvery", "KeepLast", "NoSoundCheckpointError"]
