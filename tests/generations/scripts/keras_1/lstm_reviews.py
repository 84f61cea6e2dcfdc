from keras.preprocessing import sequence
from keras.models import Sequential
from keras.layers import Dense, Activation, Embedding
from keras.layers import LSTM
from keras.callbacks import Callback
import numpy as np

max_features, maxlen = 50, 8
X = sequence.pad_sequences([list(range(1, 2 + n % 9)) for n in range(24)], maxlen=maxlen)
y = np.arange(24) % 2


class Losses(Callback):
    def on_train_begin(self, logs={}):
        self.losses = []

    def on_batch_end(self, batch, logs={}):
        self.losses.append(logs.get("loss"))


model = Sequential()
model.add(Embedding(max_features, 8, input_length=maxlen))
model.add(LSTM(8, dropout_W=0.2, dropout_U=0.2))
model.add(Dense(1))
model.add(Activation("sigmoid"))
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
losses = Losses()
hist = model.fit(X, y, batch_size=8, nb_epoch=2, verbose=0, validation_data=(X, y), callbacks=[losses])
assert len(losses.losses) == 6
score, acc = model.evaluate(X, y, batch_size=8, verbose=0)
classes = model.predict_classes(X, verbose=0)
assert classes.shape == (24, 1)
