from keras.models import Sequential
from keras.layers import Dense
from keras.callbacks import Callback
import numpy as np


class Progress(Callback):
    def on_train_begin(self, logs={}):
        self.total = self.params["nb_sample"] * self.params["nb_epoch"]
        self.names = self.params["metrics"]
        self.seen = 0

    def on_batch_end(self, batch, logs={}):
        self.seen += logs["size"]

    def on_epoch_end(self, epoch, logs={}):
        self.inputs, self.targets = self.validation_data[0], self.validation_data[1]


progress = Progress()
model = Sequential([Dense(2, input_dim=4, activation="softmax")])
model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
x, y = np.random.rand(30, 4), np.eye(2)[np.arange(30) % 2]
hist = model.fit(x, y, nb_epoch=2, batch_size=7, verbose=0, validation_data=(x[:5], y[:5]), callbacks=[progress])
assert progress.seen == progress.total == 60
assert progress.names[0] == "loss" and "val_loss" in progress.names
assert progress.inputs.shape == (5, 4)
