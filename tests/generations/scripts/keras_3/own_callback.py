import keras
import numpy as np


class CustomCallback(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        seen.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        seen.append(f"epoch {epoch}: {sorted(logs.keys())}")

    def on_test_end(self, logs=None):
        seen.append(f"test: {sorted(logs.keys())}")

    def on_predict_batch_end(self, batch, logs=None):
        seen.append(f"predict {batch}")

    def on_train_end(self, logs=None):
        seen.append("end")


seen = []
model = keras.Sequential([keras.layers.Dense(1)])
model.compile(
    optimizer=keras.optimizers.RMSprop(learning_rate=0.1), loss="mean_squared_error", metrics=["mean_absolute_error"]
)
x, y = np.random.rand(16, 4), np.random.rand(16)
history = model.fit(x, y, batch_size=8, epochs=1, verbose=0, validation_split=0.5, callbacks=[CustomCallback()])
model.evaluate(x, y, batch_size=16, verbose=0, callbacks=[CustomCallback()])
model.predict(x, batch_size=16, verbose=0, callbacks=[CustomCallback()])
assert seen == [
    "begin",
    "test: ['loss', 'mean_absolute_error']",
    "epoch 0: ['loss', 'mean_absolute_error', 'val_loss', 'val_mean_absolute_error']",
    "end",
    "test: ['loss', 'mean_absolute_error']",
    "predict 0",
], seen
