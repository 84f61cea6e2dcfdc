import keras
import numpy as np

x = np.linspace(-1, 1, 40).reshape(20, 2).astype("float32")
y = np.stack([x.sum(axis=1), x[:, 0] - x[:, 1]], axis=1)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="zeros")])
model.compile(keras.optimizers.Adam(0.05), loss="mse", metrics=["mae", keras.metrics.RootMeanSquaredError()])
callbacks = [
    keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2, min_delta=0.01),
    keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, restore_best_weights=True),
    keras.callbacks.CSVLogger("log.csv"),
    keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True, save_best_only=True),
]
history = model.fit(x, y, batch_size=4, epochs=25, shuffle=False, validation_split=0.2, verbose=0, callbacks=callbacks)
