from keras.models import Sequential
from keras.layers import Embedding, Flatten, Dense
from keras.callbacks import EarlyStopping
from keras.preprocessing.text import Tokenizer
from keras.preprocessing.sequence import pad_sequences
import numpy as np

texts = ["the cat sat on the mat", "dogs run in the park", "a cat and a dog", "the park is green"] * 4
labels = np.array([0, 1, 0, 1] * 4)
tokenizer = Tokenizer(nb_words=20)
tokenizer.fit_on_texts(texts)
data = pad_sequences(tokenizer.texts_to_sequences(texts), maxlen=6)
embedding_matrix = np.random.rand(20, 5)
model = Sequential()
model.add(Embedding(20, 5, weights=[embedding_matrix], input_length=6, trainable=False))
model.add(Flatten())
model.add(Dense(1, activation="sigmoid"))
model.compile(loss="binary_crossentropy", optimizer="rmsprop", metrics=["acc"])
hist = model.fit(
    data,
    labels,
    nb_epoch=3,
    batch_size=4,
    verbose=0,
    validation_split=0.25,
    callbacks=[EarlyStopping(patience=3, monitor="val_acc", mode="max")],
)
assert np.allclose(model.layers[0].get_weights()[0], embedding_matrix)
