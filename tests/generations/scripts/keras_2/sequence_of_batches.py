import keras
import numpy as np
from keras.utils import Sequence


class Batches(Sequence):
    def __init__(self, x_set, y_set, batch_size):
        self.x, self.y = x_set, y_set
        self.batch_size = batch_size
        self.ended = 0

    def __len__(self):
        return int(np.ceil(len(self.x) / float(self.batch_size)))

    def __getitem__(self, idx):
        part = slice(idx * self.batch_size, (idx + 1) * self.batch_size)
        return self.x[part], self.y[part]

    def on_epoch_end(self):
        self.ended += 1


train = Batches(np.random.rand(20, 3), np.random.rand(20, 1), 6)
model = keras.models.Sequential([keras.layers.Dense(1, input_shape=(3,))])
model.compile("sgd", "mse")
history = model.fit_generator(
    generator=train,
    validation_data=train,
    epochs=2,
    verbose=0,
    use_multiprocessing=False,
    workers=1,
    callbacks=[keras.callbacks.TerminateOnNaN()],
)
assert train.ended >= 2
