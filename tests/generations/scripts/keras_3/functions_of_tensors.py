import keras
from keras import layers, ops
import numpy as np

inputs = keras.Input((6,))
x = layers.Dense(4)(inputs)
x = ops.concatenate([ops.relu(x), ops.tanh(x)], axis=-1)
x = ops.mean(ops.reshape(x, (-1, 4, 2)), axis=-1)
model = keras.Model(inputs, layers.Dense(1)(x))


def smooth(y_true, y_pred):
    return ops.mean(ops.log(ops.cosh(y_pred - y_true)), axis=-1)


model.compile("adam", loss=smooth)
history = model.fit(
    np.random.rand(16, 6),
    np.random.rand(16, 1),
    epochs=2,
    verbose=0,
    callbacks=[keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1)],
)
