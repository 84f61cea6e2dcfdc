from tensorflow.keras import layers, Model, Input, regularizers
from tensorflow.keras.callbacks import ReduceLROnPlateau
import numpy as np


def block(x, filters):
    shortcut = x
    x = layers.Conv2D(filters, 3, padding="same", kernel_regularizer=regularizers.l2(1e-4))(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 3, padding="same", kernel_regularizer=regularizers.l2(1e-4))(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(layers.add([x, shortcut]))


inputs = Input((8, 8, 4))
x = block(block(inputs, 4), 4)
x = layers.GlobalAveragePooling2D()(x)
model = Model(inputs, layers.Dense(3, activation="softmax")(x))
model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
x, y = np.random.rand(12, 8, 8, 4), np.eye(3)[np.arange(12) % 3]
history = model.fit(
    x,
    y,
    batch_size=4,
    epochs=2,
    validation_data=(x, y),
    verbose=0,
    callbacks=[ReduceLROnPlateau(factor=np.sqrt(0.1), cooldown=0, patience=1, min_lr=0.5e-6)],
)
