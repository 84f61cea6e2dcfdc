import keras
import numpy as np

series = np.sin(np.arange(60) * 0.3).astype("float32")[:, None]
train = keras.utils.timeseries_dataset_from_array(series[:-5], targets=series[5:], sequence_length=5, batch_size=8)
inputs = keras.layers.Input(shape=(5, 1))
x = keras.layers.GRU(4)(inputs)
model = keras.Model(inputs, keras.layers.Dense(1)(x))
model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.01), loss="mse")
checkpoint = keras.callbacks.ModelCheckpoint(
    monitor="val_loss", filepath="model_checkpoint.weights.h5", verbose=0, save_weights_only=True, save_best_only=True
)
history = model.fit(
    train,
    epochs=2,
    validation_data=train,
    verbose=0,
    callbacks=[keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0, patience=5), checkpoint],
)
