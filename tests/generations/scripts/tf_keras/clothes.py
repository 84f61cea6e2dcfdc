import tensorflow as tf
from tensorflow import keras
import numpy as np

print(tf.__version__)
assert tf.__version__ >= "2.0"
tf.random.set_seed(42)
np.random.seed(42)
X_train, y_train = np.random.rand(40, 28, 28), np.arange(40) % 10
model = keras.models.Sequential(
    [
        keras.layers.Flatten(input_shape=[28, 28]),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.SGD(learning_rate=1e-2), metrics=["accuracy"]
)
checkpoint_cb = keras.callbacks.ModelCheckpoint("my_model.h5", save_best_only=True)
early_stopping_cb = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
history = model.fit(
    X_train,
    y_train,
    epochs=2,
    verbose=0,
    validation_data=(X_train, y_train),
    callbacks=[checkpoint_cb, early_stopping_cb],
)
model = keras.models.load_model("my_model.h5")
y_proba = model.predict(X_train[:3])
y_pred = np.argmax(model.predict(X_train[:3]), axis=-1)
