from keras import models, layers
from keras.datasets import boston_housing
from keras.callbacks import CSVLogger
import numpy as np

(train_data, train_targets), (test_data, test_targets) = boston_housing.load_data()
mean, std = train_data.mean(axis=0), train_data.std(axis=0)
train_data = (train_data - mean) / std


def build_model():
    model = models.Sequential()
    model.add(layers.Dense(8, activation="relu", input_shape=(train_data.shape[1],)))
    model.add(layers.Dense(1))
    model.compile(optimizer="rmsprop", loss="mse", metrics=["mae"])
    return model


k = 2
num_val_samples = len(train_data) // k
all_mae_histories = []
for i in range(k):
    val_data = train_data[i * num_val_samples : (i + 1) * num_val_samples]
    val_targets = train_targets[i * num_val_samples : (i + 1) * num_val_samples]
    model = build_model()
    history = model.fit(
        val_data,
        val_targets,
        validation_data=(val_data, val_targets),
        epochs=2,
        batch_size=1,
        verbose=0,
        callbacks=[CSVLogger("fold_%d.csv" % i)],
    )
    all_mae_histories.append(history.history["val_mean_absolute_error"])
average = [np.mean([x[i] for x in all_mae_histories]) for i in range(2)]
