import pandas as pd
import numpy as np
import tensorflow as tf

table = pd.DataFrame(
    {"rooms": np.random.randint(1, 6, 30), "age": np.random.rand(30) * 50, "price": np.random.rand(30)}
)
target = table.pop("price")
normalizer = tf.keras.layers.experimental.preprocessing.Normalization()
normalizer.adapt(np.array(table, dtype="float32"))
model = tf.keras.Sequential([normalizer, tf.keras.layers.Dense(8, activation="relu"), tf.keras.layers.Dense(1)])
model.compile(loss="mean_absolute_error", optimizer=tf.keras.optimizers.Adam(0.01))


class PrintDot(tf.keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs):
        if epoch % 10 == 0:
            print("")
        print(".", end="")


history = model.fit(table, target, epochs=3, validation_split=0.2, verbose=0, callbacks=[PrintDot()])
hist = pd.DataFrame(history.history)
hist["epoch"] = history.epoch
assert hist.tail().shape == (3, 3)
