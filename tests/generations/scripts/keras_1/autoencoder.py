from keras.layers import Input, Dense
from keras.models import Model
from keras.callbacks import TensorBoard
from keras import regularizers
import numpy as np

encoding_dim = 3
input_img = Input(shape=(10,))
encoded = Dense(encoding_dim, activation="relu", activity_regularizer=regularizers.activity_l1(1e-5))(input_img)
decoded = Dense(10, activation="sigmoid")(encoded)
autoencoder = Model(input=input_img, output=decoded)
encoder = Model(input=input_img, output=encoded)
autoencoder.compile(optimizer="adadelta", loss="binary_crossentropy")
x = np.random.rand(32, 10)
hist = autoencoder.fit(
    x,
    x,
    nb_epoch=2,
    batch_size=8,
    shuffle=True,
    validation_data=(x, x),
    verbose=0,
    callbacks=[TensorBoard(log_dir="./autoencoder", histogram_freq=0, write_graph=False)],
)
assert encoder.predict(x).shape == (32, encoding_dim)
