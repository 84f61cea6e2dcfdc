from tensorflow.keras.models import Model
from tensorflow.keras.layers import Input, LSTM, Embedding, Dense, TimeDistributed, Dropout, Bidirectional
from tensorflow.keras.preprocessing.sequence import pad_sequences
from tensorflow.keras.utils import to_categorical
from tensorflow.keras.callbacks import ModelCheckpoint, EarlyStopping
import numpy as np

sentences = [list(np.random.randint(1, 20, n)) for n in np.random.randint(2, 7, 16)]
tags = [[word % 3 for word in sentence] for sentence in sentences]
X = pad_sequences(maxlen=7, sequences=sentences, padding="post", value=0)
y = to_categorical(pad_sequences(maxlen=7, sequences=tags, padding="post", value=0), num_classes=3)
inputs = Input(shape=(7,))
x = Embedding(input_dim=20, output_dim=6, input_length=7)(inputs)
x = Dropout(0.1)(x)
x = Bidirectional(LSTM(units=4, return_sequences=True, recurrent_dropout=0.1))(x)
out = TimeDistributed(Dense(3, activation="softmax"))(x)
model = Model(inputs, out)
model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
history = model.fit(
    X,
    y,
    batch_size=8,
    epochs=2,
    validation_split=0.25,
    verbose=0,
    callbacks=[
        EarlyStopping(monitor="val_accuracy", patience=2, mode="max"),
        ModelCheckpoint("tags.h5", monitor="val_accuracy", save_best_only=True, mode="max"),
    ],
)
