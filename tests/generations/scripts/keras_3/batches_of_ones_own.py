import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.batch_size = x, y, batch_size

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        low = index * self.batch_size
        return self.x[low : low + self.batch_size], self.y[low : low + self.batch_size]


data = Batches(np.random.rand(20, 3), np.random.rand(20, 1), 6, workers=1)
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("adam", "mse")
history = model.fit(
    data, epochs=2, validation_data=data, verbose=0, callbacks=[keras.callbacks.EarlyStopping(patience=2)]
)
