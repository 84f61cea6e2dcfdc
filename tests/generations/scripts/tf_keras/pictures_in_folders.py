import tensorflow as tf
from tensorflow.keras import layers
from tensorflow.keras.models import Sequential
import numpy as np
import os
import pathlib
from PIL import Image

for name in ("daisy", "rose"):
    os.makedirs(os.path.join("flowers", name))
    for number in range(6):
        picture = np.random.randint(0, 255, (20, 24, 3), dtype="uint8")
        Image.fromarray(picture).save(os.path.join("flowers", name, "%d.jpg" % number))
data_dir = pathlib.Path("flowers")
img_height, img_width = 16, 16
train_ds = tf.keras.preprocessing.image_dataset_from_directory(
    data_dir, validation_split=0.25, subset="training", seed=123, image_size=(img_height, img_width), batch_size=4
)
val_ds = tf.keras.preprocessing.image_dataset_from_directory(
    data_dir, validation_split=0.25, subset="validation", seed=123, image_size=(img_height, img_width), batch_size=4
)
class_names = train_ds.class_names
train_ds = train_ds.cache().shuffle(10).prefetch(buffer_size=tf.data.AUTOTUNE)
model = Sequential(
    [
        layers.experimental.preprocessing.Rescaling(1.0 / 255, input_shape=(img_height, img_width, 3)),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(len(class_names)),
    ]
)
model.compile(
    optimizer="adam", loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
history = model.fit(
    train_ds, validation_data=val_ds, epochs=2, verbose=0, callbacks=[tf.keras.callbacks.EarlyStopping(patience=4)]
)
