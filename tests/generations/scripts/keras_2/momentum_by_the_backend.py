from keras.models import Sequential
from keras.layers import Dense
from keras.optimizers import SGD
from keras.callbacks import Callback
from keras import backend as K
import numpy as np


class MomentumScheduler(Callback):
    def on_epoch_begin(self, epoch, logs=None):
        K.set_value(self.model.optimizer.momentum, 0.5 + 0.1 * epoch)
        K.set_value(self.model.optimizer.lr, 0.1 / (epoch + 1))


model = Sequential([Dense(1, input_dim=3)])
model.compile(SGD(lr=0.1, momentum=0.9), "mse")
history = model.fit(np.random.rand(12, 3), np.random.rand(12), epochs=3, verbose=0, callbacks=[MomentumScheduler()])
assert np.isclose(K.get_value(model.optimizer.momentum), 0.7)
assert np.isclose(K.get_value(model.optimizer.lr), 0.1 / 3)
