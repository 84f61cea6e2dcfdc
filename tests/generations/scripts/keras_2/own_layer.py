from keras import backend as K
from keras.engine.topology import Layer
from keras.models import Sequential
from keras.layers import Dense
from keras.callbacks import EarlyStopping
import numpy as np


class Scaled(Layer):
    def __init__(self, **kwargs):
        super(Scaled, self).__init__(**kwargs)

    def build(self, input_shape):
        self.factor = self.add_weight(name="factor", shape=(input_shape[1],), initializer="uniform", trainable=True)
        super(Scaled, self).build(input_shape)

    def call(self, x):
        return K.tanh(x * self.factor) + K.mean(x, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return input_shape


model = Sequential([Dense(4, input_shape=(3,)), Scaled(name="scaled"), Dense(1)])
model.compile("adam", "mse")
history = model.fit(
    np.random.rand(16, 3),
    np.random.rand(16),
    epochs=2,
    verbose=0,
    callbacks=[EarlyStopping(monitor="loss", min_delta=0.1, patience=1)],
)
assert len(model.get_layer("scaled").get_weights()) == 1
