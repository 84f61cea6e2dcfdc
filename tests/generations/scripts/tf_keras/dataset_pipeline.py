import tensorflow as tf
import numpy as np

AUTOTUNE = tf.data.experimental.AUTOTUNE
images, labels = np.random.rand(50, 6, 6, 1).astype("float32"), np.arange(50) % 5


def scale(image, label):
    image = tf.cast(image, tf.float32)
    return image / 255.0, label


train = tf.data.Dataset.from_tensor_slices((images, labels))
train = train.map(scale, num_parallel_calls=AUTOTUNE).cache().shuffle(50).batch(8).prefetch(AUTOTUNE)
test = tf.data.Dataset.from_tensor_slices((images, labels)).map(scale).batch(10)
model = tf.keras.Sequential(
    [
        tf.keras.layers.Conv2D(4, 3, activation="relu", input_shape=(6, 6, 1)),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(5),
    ]
)
model.compile(
    optimizer="adam",
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
)
history = model.fit(
    train, epochs=2, validation_data=test, verbose=0, callbacks=[tf.keras.callbacks.EarlyStopping(patience=3)]
)
assert "val_sparse_categorical_accuracy" in history.history
for batch_images, batch_labels in test.take(1):
    assert batch_images.shape == (10, 6, 6, 1) and batch_labels.numpy().shape == (10,)
