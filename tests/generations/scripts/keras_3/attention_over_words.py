import keras
from keras import layers
import numpy as np

vocab_size, maxlen, embed_dim = 30, 8, 8
inputs = layers.Input(shape=(maxlen,))
x = layers.Embedding(vocab_size, embed_dim)(inputs)
attention = layers.MultiHeadAttention(num_heads=2, key_dim=4)(x, x)
x = layers.LayerNormalization(epsilon=1e-6)(x + attention)
x = layers.GlobalAveragePooling1D()(x)
x = layers.Dropout(0.1)(x)
outputs = layers.Dense(2, activation="softmax")(x)
model = keras.Model(inputs=inputs, outputs=outputs)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
x, y = np.random.randint(0, vocab_size, (24, maxlen)), np.arange(24) % 2
history = model.fit(
    x, y, batch_size=8, epochs=2, validation_split=0.25, verbose=0, callbacks=[keras.callbacks.CSVLogger("log.csv")]
)
