from keras.models import Model, Sequential
from keras.layers import Input, Conv2D, GlobalAveragePooling2D, Dense
from keras.callbacks import EarlyStopping
from keras import optimizers
import numpy as np

inputs = Input(shape=(8, 8, 3))
x = Conv2D(4, 3, activation="relu", name="block1_conv1")(inputs)
x = Conv2D(4, 3, activation="relu", name="block2_conv1")(x)
base = Model(inputs, x)
for layer in base.layers:
    layer.trainable = False
top = GlobalAveragePooling2D()(base.output)
model = Model(inputs=base.input, outputs=Dense(2, activation="softmax")(top))
model.compile(optimizers.SGD(lr=1e-2, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])
before = base.get_weights()
x, y = np.random.rand(8, 8, 8, 3), np.eye(2)[np.arange(8) % 2]
history = model.fit(x, y, epochs=2, verbose=0, validation_split=0.25, callbacks=[EarlyStopping(patience=2)])
assert all((a == b).all() for a, b in zip(before, base.get_weights()))
model.get_layer("block2_conv1").trainable = True
model.compile(optimizers.SGD(lr=1e-1), "categorical_crossentropy")
fine = model.fit(x, y, epochs=1, verbose=0, callbacks=[EarlyStopping(monitor="loss", patience=2)])
assert not all((a == b).all() for a, b in zip(before, base.get_weights()))
