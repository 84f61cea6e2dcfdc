import tensorflow as tf
import numpy as np


class WideAndDeepModel(tf.keras.Model):
    def __init__(self, units=8, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.hidden1 = tf.keras.layers.Dense(units, activation=activation)
        self.hidden2 = tf.keras.layers.Dense(units, activation=activation)
        self.main_output = tf.keras.layers.Dense(1)

    def call(self, inputs):
        input_A, input_B = inputs
        hidden = self.hidden2(self.hidden1(input_B))
        concat = tf.keras.layers.concatenate([input_A, hidden])
        return self.main_output(concat)


model = WideAndDeepModel(8)
model.compile(loss="mse", optimizer=tf.keras.optimizers.Adam(learning_rate=1e-3), metrics=["mae"])
A, B, y = np.random.rand(20, 3), np.random.rand(20, 4), np.random.rand(20, 1)
history = model.fit(
    (A, B), y, epochs=2, validation_split=0.2, verbose=0, callbacks=[tf.keras.callbacks.TensorBoard("./my_logs")]
)
assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
