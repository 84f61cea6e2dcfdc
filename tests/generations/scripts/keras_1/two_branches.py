from keras.models import Model
from keras.layers import Input, Dense, merge
from keras.callbacks import CSVLogger
import numpy as np

left = Input(shape=(4,))
right = Input(shape=(3,))
joined = merge([Dense(5, activation="tanh")(left), Dense(5, activation="tanh")(right)], mode="concat")
output = Dense(1, init="normal", W_regularizer="l2")(joined)
model = Model(input=[left, right], output=output)
model.compile(loss="mse", optimizer="sgd")
a, b = np.random.rand(20, 4), np.random.rand(20, 3)
hist = model.fit([a, b], a.sum(axis=1), nb_epoch=3, batch_size=5, verbose=0, callbacks=[CSVLogger("training.log")])
assert hist.history["loss"][-1] < hist.history["loss"][0]
