from keras.models import Sequential
from keras.layers import Dense, Dropout
from keras.callbacks import Callback
from keras import backend as K
import numpy as np


class Activations(Callback):
    def on_epoch_end(self, epoch, logs=None):
        function = K.function([self.model.layers[0].input, K.learning_phase()], [self.model.layers[1].output])
        values.append(function([x, 0])[0])


values = []
x = np.random.rand(10, 4)
model = Sequential([Dense(6, activation="relu", input_shape=(4,)), Dropout(0.5), Dense(1)])
model.compile("sgd", "mse")
history = model.fit(x, np.zeros(10), epochs=2, verbose=0, callbacks=[Activations()])
assert values[0].shape == (10, 6) and not np.allclose(values[0], values[1])
