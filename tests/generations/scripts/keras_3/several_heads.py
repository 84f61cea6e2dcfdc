import keras
from keras import layers
import numpy as np

inputs = keras.Input((5,), name="entry")
shared = layers.Dense(6, activation="relu")(inputs)
model = keras.Model(
    inputs,
    {
        "score": layers.Dense(1, name="score")(shared),
        "kind": layers.Dense(3, activation="softmax", name="kind")(shared),
    },
)
model.compile(
    "adam",
    loss={"score": "mse", "kind": "sparse_categorical_crossentropy"},
    loss_weights={"score": 0.5, "kind": 1.0},
    metrics={"score": ["mae"], "kind": ["accuracy"]},
)
x = np.random.rand(16, 5)
targets = {"score": np.random.rand(16, 1), "kind": np.arange(16) % 3}
history = model.fit(
    x,
    targets,
    epochs=2,
    verbose=0,
    validation_split=0.25,
    callbacks=[
        keras.callbacks.ModelCheckpoint("heads.keras", monitor="val_kind_accuracy", mode="max", save_best_only=True)
    ],
)
assert "val_score_mae" in history.history
