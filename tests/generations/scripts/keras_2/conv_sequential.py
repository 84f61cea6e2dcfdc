import keras
from keras.models import Sequential, load_model
from keras.layers import Dense, Conv2D, MaxPooling2D, Flatten, Dropout
from keras.callbacks import ModelCheckpoint, ReduceLROnPlateau
from keras import backend as K
import numpy as np

x, y = np.random.rand(24, 10, 10, 1), keras.utils.to_categorical(np.arange(24) % 4, 4)
assert K.image_data_format() == "channels_last"
model = Sequential()
model.add(Conv2D(4, kernel_size=(3, 3), activation="relu", input_shape=(10, 10, 1)))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Dropout(0.25))
model.add(Flatten())
model.add(Dense(4, activation="softmax"))
model.compile(loss=keras.losses.categorical_crossentropy, optimizer=keras.optimizers.Adadelta(), metrics=["accuracy"])
callbacks = [
    ModelCheckpoint("best.h5", monitor="val_loss", save_best_only=True),
    ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=2, min_lr=1e-6),
]
history = model.fit(x, y, batch_size=8, epochs=2, verbose=2, validation_data=(x, y), callbacks=callbacks)
again = load_model("best.h5")
assert again.predict(x).shape == (24, 4)
