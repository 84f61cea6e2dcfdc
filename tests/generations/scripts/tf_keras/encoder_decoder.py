import tensorflow as tf
import numpy as np

latent = 6
encoder_inputs = tf.keras.Input(shape=(None, 5))
encoder_outputs, state_h, state_c = tf.keras.layers.LSTM(latent, return_state=True)(encoder_inputs)
decoder_inputs = tf.keras.Input(shape=(None, 4))
decoder_lstm = tf.keras.layers.LSTM(latent, return_sequences=True, return_state=True)
decoder_outputs, _, _ = decoder_lstm(decoder_inputs, initial_state=[state_h, state_c])
decoder_outputs = tf.keras.layers.Dense(4, activation="softmax")(decoder_outputs)
model = tf.keras.Model([encoder_inputs, decoder_inputs], decoder_outputs)
model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
e, d = np.random.rand(10, 6, 5), np.eye(4)[np.random.randint(0, 4, (10, 7))]
history = model.fit(
    [e, d],
    np.roll(d, -1, axis=1),
    batch_size=5,
    epochs=2,
    validation_split=0.2,
    verbose=0,
    callbacks=[tf.keras.callbacks.ReduceLROnPlateau(patience=1)],
)
