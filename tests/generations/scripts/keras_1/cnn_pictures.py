from keras.models import Sequential
from keras.layers import Dense, Dropout, Activation, Flatten
from keras.layers import Convolution2D, MaxPooling2D
from keras.callbacks import ModelCheckpoint
from keras.utils import np_utils
from keras import backend as K
import numpy as np

img_rows, img_cols = 12, 12
X = np.random.rand(30, img_rows, img_cols, 1)
Y = np_utils.to_categorical(np.arange(30) % 3, 3)
if K.image_dim_ordering() == "th":
    X = X.transpose(0, 3, 1, 2)
    input_shape = (1, img_rows, img_cols)
else:
    input_shape = (img_rows, img_cols, 1)

model = Sequential()
model.add(Convolution2D(4, 3, 3, border_mode="valid", input_shape=input_shape))
model.add(Activation("relu"))
model.add(Convolution2D(4, 3, 3))
model.add(Activation("relu"))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Dropout(0.25))
model.add(Flatten())
model.add(Dense(3))
model.add(Activation("softmax"))
model.compile(loss="categorical_crossentropy", optimizer="adadelta", metrics=["accuracy"])
checkpoint = ModelCheckpoint("weights.{epoch:02d}.hdf5", save_weights_only=False, verbose=0)
hist = model.fit(X, Y, batch_size=10, nb_epoch=2, verbose=0, validation_split=0.2, callbacks=[checkpoint])
assert model.layers[0].output_shape == (None, 10, 10, 4), model.layers[0].output_shape
print(hist.history)
