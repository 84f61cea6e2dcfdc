import os
import tensorflow as tf
import numpy as np


def create_model():
    model = tf.keras.models.Sequential(
        [
            tf.keras.layers.Dense(8, activation="relu", input_shape=(6,)),
            tf.keras.layers.Dropout(0.2),
            tf.keras.layers.Dense(3),
        ]
    )
    model.compile(
        optimizer="adam", loss=tf.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model


x, y = np.random.rand(20, 6), np.arange(20) % 3
checkpoint_path = "training_1/cp-{epoch:04d}.weights.h5"
checkpoint_dir = os.path.dirname(checkpoint_path)
cp_callback = tf.keras.callbacks.ModelCheckpoint(filepath=checkpoint_path, save_weights_only=True, verbose=1)
model = create_model()
history = model.fit(x, y, epochs=2, validation_data=(x, y), verbose=0, callbacks=[cp_callback])
print(os.listdir(checkpoint_dir))
loss, acc = model.evaluate(x, y, verbose=0)
model = create_model()
model.load_weights(checkpoint_path.format(epoch=2))
loss_again, acc = model.evaluate(x, y, verbose=2)
assert np.isclose(loss, loss_again)
