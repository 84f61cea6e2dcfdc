import tensorflow as tf
import numpy as np

loss_tracker = tf.keras.metrics.Mean(name="loss")
mae_metric = tf.keras.metrics.MeanAbsoluteError(name="mae")


class CustomModel(tf.keras.Model):
    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        loss_tracker.update_state(tf.reduce_mean(tf.square(y - y_pred)))
        mae_metric.update_state(y, y_pred)
        return {"loss": loss_tracker.result(), "mae": mae_metric.result()}

    @property
    def metrics(self):
        return [loss_tracker, mae_metric]


inputs = tf.keras.Input(shape=(4,))
model = CustomModel(inputs, tf.keras.layers.Dense(1)(inputs))
model.compile(optimizer="adam", loss="mse")
x, y = np.random.random((20, 4)), np.random.random((20, 1))
csv = tf.keras.callbacks.CSVLogger("log.csv")
history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y), callbacks=[csv])
result = model.evaluate(x, y, verbose=0, return_dict=True)
assert set(result) == {"loss", "mae"}
