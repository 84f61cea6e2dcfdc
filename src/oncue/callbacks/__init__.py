"""What happens on cue in a training run: Keras's callbacks. Importing this imports neither torch nor NumPy."""

from oncue import legacy as legacy
from oncue.callbacks.backup_and_restore import BackupAndRestore
from oncue.callbacks.base_logger import BaseLogger
from oncue.callbacks.callback import Callback
from oncue.callbacks.callback_list import CallbackList
from oncue.callbacks.csv_logger import CSVLogger
from oncue.callbacks.early_stopping import EarlyStopping
from oncue.callbacks.history import History
from oncue.callbacks.lambda_callback import LambdaCallback
from oncue.callbacks.learning_rate_scheduler import LearningRateScheduler
from oncue.callbacks.model_checkpoint import ModelCheckpoint
from oncue.callbacks.progbar_logger import ProgbarLogger
from oncue.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from oncue.callbacks.remote_monitor import RemoteMonitor
from oncue.callbacks.swap_ema_weights import SwapEMAWeights
from oncue.callbacks.tensorboard import TensorBoard
from oncue.callbacks.terminate_on_nan import TerminateOnNaN

CallbackList.defaults = {"history": History, "progbar": ProgbarLogger}

__all__ = [
    "BackupAndRestore",
    "BaseLogger",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
