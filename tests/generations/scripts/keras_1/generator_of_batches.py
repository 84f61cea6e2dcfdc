from keras.models import Sequential
from keras.layers import Dense
from keras.callbacks import RemoteMonitor, ProgbarLogger, BaseLogger, LambdaCallback
import numpy as np


def batches():
    while 1:
        yield np.random.rand(8, 5), np.random.rand(8, 1)


seen = []
model = Sequential([Dense(4, input_dim=5, activation="relu"), Dense(1)])
model.compile("rmsprop", "mae")
hist = model.fit_generator(
    batches(),
    samples_per_epoch=32,
    nb_epoch=2,
    verbose=0,
    validation_data=batches(),
    nb_val_samples=16,
    callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"]))],
    max_q_size=4,
    nb_worker=1,
    pickle_safe=False,
)
assert len(seen) == 2
score = model.evaluate_generator(batches(), val_samples=16)
predictions = model.predict_generator(batches(), val_samples=16)
assert predictions.shape == (16, 1)
