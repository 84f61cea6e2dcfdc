import os
from keras.models import Sequential, load_model
from keras.layers import Dense
from keras.callbacks import ModelCheckpoint
import numpy as np

x, y = np.random.rand(24, 4), np.eye(2)[(np.arange(24) % 6 == 0).astype(int)]
for part in range(2):
    if os.path.exists("model.h5"):
        model = load_model("model.h5")
        start = 2
    else:
        model = Sequential([Dense(8, activation="relu", input_dim=4), Dense(2, activation="softmax")])
        model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
        start = 0
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=start + 2,
        initial_epoch=start,
        verbose=0,
        class_weight={0: 1.0, 1: 5.0},
        callbacks=[ModelCheckpoint("model.h5", period=1)],
    )
assert history.epoch == [2, 3]
