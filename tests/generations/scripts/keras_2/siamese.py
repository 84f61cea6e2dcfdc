from keras.models import Sequential, Model
from keras.layers import Dense, Input, Lambda
from keras.optimizers import RMSprop
from keras.callbacks import ReduceLROnPlateau
from keras import backend as K
import numpy as np


def contrastive_loss(y_true, y_pred):
    margin = 1
    return K.mean(y_true * K.square(y_pred) + (1 - y_true) * K.square(K.maximum(margin - y_pred, 0)))


def distance(vects):
    x, y = vects
    return K.sqrt(K.maximum(K.sum(K.square(x - y), axis=1, keepdims=True), K.epsilon()))


base = Sequential([Dense(8, activation="relu", input_shape=(5,)), Dense(3)])
left, right = Input(shape=(5,)), Input(shape=(5,))
model = Model([left, right], distance([base(left), base(right)]))
model.compile(loss=contrastive_loss, optimizer=RMSprop())
a, b = np.random.rand(20, 5), np.random.rand(20, 5)
history = model.fit(
    [a, b],
    np.arange(20) % 2,
    batch_size=5,
    epochs=2,
    verbose=0,
    callbacks=[ReduceLROnPlateau(monitor="loss", patience=1)],
)
