from tensorflow import keras
import numpy as np

x = np.linspace(-1, 1, 32).reshape(16, 2)
y = x @ np.array([[2.0], [-1.0]]) + 0.5
model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,), kernel_initializer="zeros")])
model.compile(keras.optimizers.SGD(learning_rate=0.1, momentum=0.5), "mse", metrics=["mae"])
stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e-3, patience=2)
plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=0.05)
log = keras.callbacks.CSVLogger("log.csv")
history = model.fit(x, y, batch_size=4, epochs=30, shuffle=False, verbose=0, callbacks=[plateau, stop, log])
