from keras.models import Sequential
from keras.layers import Dense, LSTM
from keras.callbacks import History
import numpy as np

tsteps, batch_size = 1, 5
series = np.cos(np.arange(40) * 0.2)[:, None, None]
expected = np.roll(series[:, 0, 0], -1)[:, None]
model = Sequential()
model.add(LSTM(6, batch_input_shape=(batch_size, tsteps, 1), return_sequences=True, stateful=True))
model.add(LSTM(6, batch_input_shape=(batch_size, tsteps, 1), return_sequences=False, stateful=True))
model.add(Dense(1))
model.compile(loss="mse", optimizer="rmsprop")
history = History()
for i in range(3):
    model.fit(series, expected, batch_size=batch_size, verbose=0, nb_epoch=1, shuffle=False, callbacks=[history])
    model.reset_states()
predicted = model.predict(series, batch_size=batch_size)
assert predicted.shape == (40, 1)
