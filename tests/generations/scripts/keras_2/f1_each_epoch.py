from keras.callbacks import Callback
from keras.models import Sequential
from keras.layers import Dense
import numpy as np


class F1(Callback):
    def __init__(self, validation_data):
        super(F1, self).__init__()
        self.validation_data = validation_data

    def on_train_begin(self, logs=None):
        self.scores = []

    def on_epoch_end(self, epoch, logs=None):
        predicted = (np.asarray(self.model.predict(self.validation_data[0]))).round()
        target = self.validation_data[1]
        hits = float((predicted * target).sum())
        self.scores.append(2 * hits / max(float(predicted.sum() + target.sum()), 1e-7))
        print(" - f1: %.3f" % self.scores[-1])


x, y = np.random.rand(30, 5), (np.random.rand(30, 1) > 0.5).astype(int)
scores = F1((x, y))
model = Sequential([Dense(1, activation="sigmoid", input_dim=5)])
model.compile(loss="binary_crossentropy", optimizer="adam")
history = model.fit(x, y, epochs=2, verbose=0, callbacks=[scores])
assert len(scores.scores) == 2
