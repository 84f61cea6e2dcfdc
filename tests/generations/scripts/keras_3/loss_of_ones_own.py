import keras
from keras import ops
import numpy as np


class Quantile(keras.losses.Loss):
    def __init__(self, share=0.9, name="quantile"):
        super().__init__(name=name)
        self.share = share

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.share * error, (self.share - 1) * error), axis=-1)


class Within(keras.metrics.Metric):
    def __init__(self, name="within", **kwargs):
        super().__init__(name=name, **kwargs)
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.hits.assign_add(ops.sum(ops.cast(ops.abs(y_true - y_pred) < 0.5, "float32")))
        self.count.assign_add(ops.cast(ops.size(y_true), "float32"))

    def result(self):
        return self.hits / self.count


x = np.linspace(0, 1, 32).reshape(16, 2).astype("float32")
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
model.compile(keras.optimizers.SGD(0.1), loss=Quantile(0.8), metrics=[Within()])
history = model.fit(
    x,
    x.sum(axis=1, keepdims=True),
    batch_size=4,
    epochs=3,
    shuffle=False,
    verbose=0,
    callbacks=[keras.callbacks.EarlyStopping(monitor="within", mode="max", patience=5)],
)
