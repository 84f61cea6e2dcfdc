import keras
import numpy as np

model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "mse")
x = np.linspace(0, 1, 24).reshape(8, 3)
history = model.fit(
    x,
    x.sum(axis=1),
    batch_size=4,
    epochs=3,
    shuffle=False,
    validation_data=(x, x.sum(axis=1)),
    verbose=0,
    callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
)
