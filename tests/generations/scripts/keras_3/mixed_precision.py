import keras
import numpy as np

keras.mixed_precision.set_global_policy("mixed_bfloat16")
model = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2, dtype="float32")]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
history = model.fit(
    np.random.rand(16, 4), np.arange(16) % 2, epochs=2, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()]
)
assert model.layers[0].compute_dtype == "bfloat16"
keras.mixed_precision.set_global_policy("float32")
