"""Trains a network on the topics of news."""

import numpy as np
import keras
from keras.datasets import reuters
from keras.models import Sequential
from keras.layers import Dense, Dropout, Activation
from keras.preprocessing.text import Tokenizer
from keras.callbacks import EarlyStopping

max_words, batch_size, epochs = 30, 8, 2
(x_train, y_train), (x_test, y_test) = reuters.load_data(num_words=max_words, test_split=0.2)
num_classes = np.max(y_train) + 1
tokenizer = Tokenizer(num_words=max_words)
x_train = tokenizer.sequences_to_matrix(x_train, mode="binary")
y_train = keras.utils.to_categorical(y_train, num_classes)

model = Sequential()
model.add(Dense(16, input_shape=(max_words,)))
model.add(Activation("relu"))
model.add(Dropout(0.5))
model.add(Dense(num_classes))
model.add(Activation("softmax"))
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
history = model.fit(
    x_train,
    y_train,
    batch_size=batch_size,
    epochs=epochs,
    verbose=0,
    validation_split=0.1,
    callbacks=[EarlyStopping(monitor="val_acc", mode="max", patience=3)],
)
print(history.history["acc"], history.history["val_acc"])
