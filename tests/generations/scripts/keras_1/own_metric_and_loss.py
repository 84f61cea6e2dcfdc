from keras.models import Sequential
from keras.layers import Dense
from keras.callbacks import ModelCheckpoint
from keras import backend as K
import numpy as np


def rmse(y_true, y_pred):
    return K.sqrt(K.mean(K.square(y_pred - y_true), axis=-1))


def within(y_true, y_pred):
    return K.mean(K.less(K.abs(y_true - y_pred), 0.5), axis=-1)


model = Sequential([Dense(3, input_dim=3)])
model.compile(loss=rmse, optimizer="sgd", metrics=[within])
x = np.random.rand(20, 3)
hist = model.fit(
    x,
    x,
    nb_epoch=3,
    verbose=0,
    validation_split=0.5,
    callbacks=[ModelCheckpoint("best.h5", monitor="val_within", mode="max", save_best_only=True)],
)
assert set(hist.history) == {"loss", "within", "val_loss", "val_within"}
