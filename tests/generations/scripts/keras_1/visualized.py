from keras.models import Sequential
from keras.layers import Dense, Flatten
from keras.callbacks import ModelCheckpoint
from keras.utils.visualize_util import plot
import numpy as np

model = Sequential([Flatten(input_shape=(2, 3)), Dense(2, name="out")])
plot(model, to_file="model.png", show_shapes=True)
model.compile("sgd", "mse")
hist = model.fit(
    np.random.rand(8, 2, 3), np.random.rand(8, 2), nb_epoch=1, verbose=0, callbacks=[ModelCheckpoint("model.h5")]
)
json_string = model.to_json()
open("architecture.json", "w").write(json_string)
