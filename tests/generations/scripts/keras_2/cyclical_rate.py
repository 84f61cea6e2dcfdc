from keras.callbacks import Callback
from keras.models import Sequential
from keras.layers import Dense
from keras import backend as K
import numpy as np


class CyclicLR(Callback):
    """Goes up and down between two rates, batch by batch."""

    def __init__(self, base_lr=0.001, max_lr=0.006, step_size=4.0):
        super(CyclicLR, self).__init__()
        self.base_lr, self.max_lr, self.step_size = base_lr, max_lr, step_size
        self.clr_iterations = 0.0
        self.history = {}

    def clr(self):
        cycle = np.floor(1 + self.clr_iterations / (2 * self.step_size))
        x = np.abs(self.clr_iterations / self.step_size - 2 * cycle + 1)
        return self.base_lr + (self.max_lr - self.base_lr) * np.maximum(0, (1 - x))

    def on_train_begin(self, logs={}):
        logs = logs or {}
        K.set_value(self.model.optimizer.lr, self.base_lr)

    def on_batch_end(self, batch, logs=None):
        logs = logs or {}
        self.clr_iterations += 1
        self.history.setdefault("lr", []).append(K.get_value(self.model.optimizer.lr))
        for k, v in logs.items():
            self.history.setdefault(k, []).append(v)
        K.set_value(self.model.optimizer.lr, self.clr())


clr = CyclicLR()
model = Sequential([Dense(2, input_shape=(4,), activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(np.random.rand(40, 4), np.arange(40) % 2, batch_size=5, epochs=2, verbose=0, callbacks=[clr])
assert len(clr.history["lr"]) == 16 and np.isclose(max(clr.history["lr"]), 0.006)
