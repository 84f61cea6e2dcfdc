import keras
from keras import layers
import numpy as np

encoder = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")])
decoder = keras.Sequential(
    [
        keras.Input((4, 4, 4)),
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
    ]
)
model = keras.Sequential([encoder, decoder])
model.compile("adam", "binary_crossentropy")
x = np.random.rand(10, 8, 8, 1)
history = model.fit(x, x, batch_size=5, epochs=2, verbose=0, callbacks=[keras.callbacks.BackupAndRestore("backup")])
assert model.predict(x, verbose=0).shape == x.shape
