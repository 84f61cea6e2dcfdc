import tensorflow as tf
from tensorflow.keras import layers
import numpy as np

generator = tf.keras.Sequential([layers.Dense(8, activation="relu", input_shape=(3,)), layers.Dense(4)])
discriminator = tf.keras.Sequential(
    [layers.Dense(8, activation="relu", input_shape=(4,)), layers.Dense(1, activation="sigmoid")]
)
discriminator.compile(loss="binary_crossentropy", optimizer=tf.keras.optimizers.Adam(0.001), metrics=["accuracy"])
discriminator.trainable = False
z = tf.keras.Input(shape=(3,))
combined = tf.keras.Model(z, discriminator(generator(z)))
combined.compile(loss="binary_crossentropy", optimizer="adam")
callbacks = tf.keras.callbacks.CallbackList([tf.keras.callbacks.CSVLogger("gan.csv")], model=combined)
callbacks.on_train_begin()
for epoch in range(3):
    fake = generator.predict(np.random.normal(0, 1, (8, 3)))
    discriminator.trainable = True
    d_loss = discriminator.train_on_batch(np.random.rand(8, 4), np.ones((8, 1)))
    discriminator.train_on_batch(fake, np.zeros((8, 1)))
    discriminator.trainable = False
    before = discriminator.get_weights()
    g_loss = combined.train_on_batch(np.random.normal(0, 1, (8, 3)), np.ones((8, 1)))
    assert all((a == b).all() for a, b in zip(before, discriminator.get_weights()))
    callbacks.on_epoch_end(epoch, {"d_loss": d_loss[0], "g_loss": g_loss})
callbacks.on_train_end()
