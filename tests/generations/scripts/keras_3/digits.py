import keras
from keras import layers
import numpy as np

keras.utils.set_random_seed(812)
num_classes, input_shape = 10, (28, 28, 1)
x_train, y_train = np.random.rand(40, 28, 28, 1).astype("float32"), np.arange(40) % 10
model = keras.Sequential(
    [
        keras.Input(shape=input_shape),
        layers.Conv2D(4, kernel_size=(3, 3), strides=2, activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.5),
        layers.Dense(num_classes, activation="softmax"),
    ]
)
model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(),
    optimizer=keras.optimizers.Adam(learning_rate=1e-3),
    metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
)
callbacks = [
    keras.callbacks.ModelCheckpoint(filepath="model_at_epoch_{epoch}.keras"),
    keras.callbacks.EarlyStopping(monitor="val_loss", patience=2),
]
history = model.fit(x_train, y_train, batch_size=16, epochs=2, validation_split=0.15, verbose=0, callbacks=callbacks)
model.save("final_model.keras")
predictions = keras.saving.load_model("final_model.keras").predict(x_train, verbose=0)
assert predictions.shape == (40, 10)
