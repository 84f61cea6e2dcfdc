import keras
import numpy as np


@keras.saving.register_keras_serializable(package="mine")
class Linear(keras.layers.Layer):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="random_normal", trainable=True)
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", trainable=True)

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.w) + self.b

    def get_config(self):
        return {**super().get_config(), "units": self.units}


model = keras.Sequential([keras.Input((3,)), Linear(4), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.random.rand(12, 3)
history = model.fit(x, x.sum(axis=1), epochs=2, verbose=0, callbacks=[keras.callbacks.ModelCheckpoint("mine.keras")])
again = keras.models.load_model("mine.keras")
assert np.allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
