from keras.models import Sequential
from keras.layers.core import Dense, Activation
from keras.layers.normalization import BatchNormalization
from keras.layers.noise import GaussianNoise
from keras.layers.advanced_activations import LeakyReLU, PReLU
from keras.callbacks import Callback
import numpy as np


class Stopper(Callback):
    def __init__(self, limit):
        super(Stopper, self).__init__()
        self.limit = limit

    def on_epoch_end(self, epoch, logs={}):
        if logs.get("loss") < self.limit:
            self.model.stop_training = True


model = Sequential()
model.add(Dense(8, input_dim=6, init="he_normal"))
model.add(BatchNormalization(mode=0))
model.add(LeakyReLU(alpha=0.1))
model.add(GaussianNoise(0.1))
model.add(Dense(8, init="glorot_uniform"))
model.add(PReLU())
model.add(Dense(1, init="uniform"))
model.compile("adam", "mse")
hist = model.fit(np.random.rand(20, 6), np.zeros(20), nb_epoch=5, verbose=0, callbacks=[Stopper(100.0)])
assert len(hist.history["loss"]) == 1
