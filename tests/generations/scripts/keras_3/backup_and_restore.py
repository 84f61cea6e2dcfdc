import keras
import numpy as np


class Interrupts(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise RuntimeError("Interrupting!")


def make():
    model = keras.models.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    return model


x, y = np.arange(20.0).reshape(5, 4) / 20, np.zeros((5, 2)) + 0.5
callback = keras.callbacks.BackupAndRestore(backup_dir="backup")
model = make()
try:
    model.fit(x, y, epochs=10, batch_size=1, shuffle=False, callbacks=[callback, Interrupts()], verbose=0)
except RuntimeError:
    pass
model = make()
history = model.fit(x, y, epochs=6, batch_size=1, shuffle=False, callbacks=[callback], verbose=0)
assert history.epoch[-1] == 5
