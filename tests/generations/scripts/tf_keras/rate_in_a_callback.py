from tensorflow.keras.models import Sequential
from tensorflow.keras.layers import Dense
from tensorflow.keras.callbacks import Callback, LearningRateScheduler
import tensorflow.keras.backend as K
import numpy as np


def scheduler(epoch, lr):
    return lr if epoch < 2 else lr * 0.5


class ExponentialLearningRate(Callback):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.rates, self.losses = [], []

    def on_batch_end(self, batch, logs):
        self.rates.append(K.get_value(self.model.optimizer.learning_rate))
        self.losses.append(logs["loss"])
        K.set_value(self.model.optimizer.learning_rate, self.model.optimizer.learning_rate * self.factor)


finder = ExponentialLearningRate(1.5)
model = Sequential([Dense(1, input_shape=(3,))])
model.compile("sgd", "mse")
model.fit(np.random.rand(20, 3), np.random.rand(20), batch_size=5, epochs=1, verbose=0, callbacks=[finder])
assert np.allclose(np.diff(np.log(finder.rates)), np.log(1.5), atol=1e-4)
history = model.fit(
    np.random.rand(20, 3), np.random.rand(20), epochs=4, verbose=0, callbacks=[LearningRateScheduler(scheduler)]
)
assert np.isclose(history.history["lr"][-1], history.history["lr"][0] / 4)
