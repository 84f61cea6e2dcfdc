from keras import optimizers, models, layers
from keras.callbacks import LambdaCallback
import numpy as np

model = models.Sequential()
model.add(layers.Dense(4, activation="relu", input_shape=(6,)))
model.add(layers.Dense(1, activation="sigmoid"))
model.compile(optimizer=optimizers.rmsprop(lr=0.001), loss="binary_crossentropy", metrics=["acc"])
lines = []
history = model.fit(
    np.random.rand(20, 6),
    np.random.rand(20) > 0.5,
    epochs=2,
    batch_size=5,
    verbose=0,
    validation_split=0.2,
    callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: lines.append(logs["val_acc"]))],
)
acc, val_acc = history.history["acc"], history.history["val_acc"]
assert val_acc == lines and len(acc) == 2
