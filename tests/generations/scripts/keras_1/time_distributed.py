from keras.models import Sequential
from keras.layers import LSTM, RepeatVector, TimeDistributed, Dense
from keras.layers.wrappers import Bidirectional
from keras.callbacks import EarlyStopping
import numpy as np

model = Sequential()
model.add(Bidirectional(LSTM(4), input_shape=(5, 3)))
model.add(RepeatVector(4))
model.add(LSTM(4, return_sequences=True))
model.add(TimeDistributed(Dense(2, activation="softmax")))
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
x = np.random.rand(12, 5, 3)
y = np.eye(2)[np.random.randint(0, 2, (12, 4))]
hist = model.fit(x, y, nb_epoch=2, batch_size=6, verbose=0, callbacks=[EarlyStopping("loss", patience=5)])
assert model.output_shape == (None, 4, 2)
