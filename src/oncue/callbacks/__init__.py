"""What happens on cue in a training run: Keras's callbacks. Importing this imports neither torch nor NumPy.

A callback's own module is imported when the callback is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oncue import legacy as legacy
from oncue.callbacks.callback import Callback
from oncue.callbacks.callback_list import CallbackList
from oncue.callbacks.history import History
from oncue.callbacks.progbar_logger import ProgbarLogger
from oncue.keras_names import elsewhere

if TYPE_CHECKING:
    from oncue.callbacks.backup_and_restore import BackupAndRestore as BackupAndRestore
    from oncue.callbacks.base_logger import BaseLogger as BaseLogger
    from oncue.callbacks.batch_size_finder import BatchSizeFinder as BatchSizeFinder
    from oncue.callbacks.control import Control as Control
    from oncue.callbacks.csv_logger import CSVLogger as CSVLogger
    from oncue.callbacks.cut_mix import CutMix as CutMix
    from oncue.callbacks.device_stats import DeviceStats as DeviceStats
    from oncue.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from oncue.callbacks.freeze import Freeze as Freeze
    from oncue.callbacks.gradient_norms import GradientNorms as GradientNorms
    from oncue.callbacks.journal_logger import JournalLogger as JournalLogger
    from oncue.callbacks.lambda_callback import LambdaCallback as LambdaCallback
    from oncue.callbacks.learning_rate_finder import LearningRateFinder as LearningRateFinder
    from oncue.callbacks.learning_rate_scheduler import LearningRateScheduler as LearningRateScheduler
    from oncue.callbacks.mix_up import MixUp as MixUp
    from oncue.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from oncue.callbacks.prediction_writer import PredictionWriter as PredictionWriter
    from oncue.callbacks.preemption import Preempted as Preempted, Preemption as Preemption
    from oncue.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau as ReduceLROnPlateau
    from oncue.callbacks.remote_monitor import RemoteMonitor as RemoteMonitor
    from oncue.callbacks.run_folder import RunFolder as RunFolder
    from oncue.callbacks.stop_at_threshold import StopAtThreshold as StopAtThreshold
    from oncue.callbacks.swap_ema_weights import SwapEMAWeights as SwapEMAWeights
    from oncue.callbacks.tensorboard import TensorBoard as TensorBoard
    from oncue.callbacks.terminate_on_nan import TerminateOnNaN as TerminateOnNaN
    from oncue.callbacks.throughput import Throughput as Throughput
    from oncue.callbacks.time_limit import TimeLimit as TimeLimit
    from oncue.callbacks.tracker import Tracker as Tracker
    from oncue.callbacks.weight_average import WeightAverage as WeightAverage

CallbackList.defaults = {"history": History, "progbar": ProgbarLogger}

_MODULES = {
    "BackupAndRestore": "backup_and_restore",
    "BaseLogger": "base_logger",
    "BatchSizeFinder": "batch_size_finder",
    "CSVLogger": "csv_logger",
    "Control": "control",
    "CutMix": "cut_mix",
    "DeviceStats": "device_stats",
    "EarlyStopping": "early_stopping",
    "Freeze": "freeze",
    "GradientNorms": "gradient_norms",
    "JournalLogger": "journal_logger",
    "LambdaCallback": "lambda_callback",
    "LearningRateFinder": "learning_rate_finder",
    "LearningRateScheduler": "learning_rate_scheduler",
    "MixUp": "mix_up",
    "ModelCheckpoint": "model_checkpoint",
    "OptunaPruning": "optuna_pruning",
    "PredictionWriter": "prediction_writer",
    "Preempted": "preemption",
    "Preemption": "preemption",
    "Profile": "profile",
    "RayTuneReport": "ray_tune_report",
    "ReduceLROnPlateau": "reduce_lr_on_plateau",
    "RemoteMonitor": "remote_monitor",
    "RunFolder": "run_folder",
    "StopAtThreshold": "stop_at_threshold",
    "SwapEMAWeights": "swap_ema_weights",
    "TensorBoard": "tensorboard",
    "TerminateOnNaN": "terminate_on_nan",
    "Throughput": "throughput",
    "TimeLimit": "time_limit",
    "Tracker": "tracker",
    "WeightAverage": "weight_average",
}

__all__ = [
    "BackupAndRestore",
    "BaseLogger",
    "BatchSizeFinder",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "Control",
    "CutMix",
    "DeviceStats",
    "EarlyStopping",
    "Freeze",
    "GradientNorms",
    "History",
    "JournalLogger",
    "LambdaCallback",
    "LearningRateFinder",
    "LearningRateScheduler",
    "MixUp",
    "ModelCheckpoint",
    "OptunaPruning",
    "PredictionWriter",
    "Preempted",
    "Preemption",
    "Profile",
    "ProgbarLogger",
    "RayTuneReport",
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "RunFolder",
    "StopAtThreshold",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
    "Throughput",
    "TimeLimit",
    "Tracker",
    "WeightAverage",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        return elsewhere("oncue.callbacks", name)
    value = getattr(importlib.import_module(f"oncue.callbacks.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
