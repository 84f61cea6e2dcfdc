from keras.preprocessing.image import ImageDataGenerator
from keras.models import Sequential
from keras.layers import Convolution2D, Flatten, Dense
from keras.callbacks import ReduceLROnPlateau
import numpy as np

X, Y = np.random.rand(24, 8, 8, 3), np.random.rand(24, 2)
datagen = ImageDataGenerator(
    featurewise_center=False, rotation_range=20, width_shift_range=0.1, height_shift_range=0.1, horizontal_flip=True
)
datagen.fit(X)
model = Sequential([Convolution2D(4, 3, 3, subsample=(2, 2), input_shape=(8, 8, 3)), Flatten(), Dense(2)])
model.compile(loss="mse", optimizer="sgd")
hist = model.fit_generator(
    datagen.flow(X, Y, batch_size=8),
    samples_per_epoch=24,
    nb_epoch=2,
    verbose=0,
    validation_data=(X, Y),
    callbacks=[ReduceLROnPlateau(monitor="val_loss", factor=0.2, patience=1, epsilon=0.5)],
)
assert "lr" not in hist.history and len(hist.history["lr"]) == 2
