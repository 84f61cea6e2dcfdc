from keras.models import Sequential
from keras.layers import Dense
from keras.optimizers import SGD
from keras.callbacks import LearningRateScheduler, Callback
import keras.backend as K
import numpy as np


def step_decay(epoch):
    return 0.1 * (0.5 ** (epoch // 2))


class ShowRate(Callback):
    def on_epoch_end(self, epoch, logs={}):
        rates.append(float(K.get_value(self.model.optimizer.lr)))


rates = []
model = Sequential([Dense(1, input_dim=3)])
model.compile(loss="mean_squared_error", optimizer=SGD(lr=0.0, momentum=0.9, decay=0.0, nesterov=False))
hist = model.fit(
    np.random.rand(16, 3),
    np.random.rand(16),
    nb_epoch=4,
    verbose=0,
    callbacks=[LearningRateScheduler(step_decay), ShowRate()],
)
assert np.allclose(rates, [0.1, 0.1, 0.05, 0.05]), rates
