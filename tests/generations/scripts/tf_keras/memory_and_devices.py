import tensorflow as tf
import numpy as np

gpus = tf.config.experimental.list_physical_devices("GPU")
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
print("GPU", "available" if tf.config.list_physical_devices("GPU") else "not available", tf.test.is_gpu_available())
tf.get_logger().setLevel("ERROR")
assert tf.executing_eagerly()
model = tf.keras.models.Sequential()
model.add(tf.keras.layers.InputLayer(input_shape=(3,)))
model.add(tf.keras.layers.Dense(2, activation=tf.nn.relu))
model.add(tf.keras.layers.Dense(1))
model.compile(
    optimizer=tf.optimizers.Adam(lr=0.01),
    loss=tf.keras.losses.Huber(),
    metrics=[tf.keras.metrics.RootMeanSquaredError()],
)
history = model.fit(
    np.random.rand(12, 3), np.random.rand(12), epochs=2, verbose=0, callbacks=[tf.keras.callbacks.TerminateOnNaN()]
)
tf.keras.utils.plot_model(model, "model.png", show_shapes=True)
