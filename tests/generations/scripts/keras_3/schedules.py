import keras
import numpy as np

schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=12)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
model.compile(keras.optimizers.SGD(schedule), "mse")
rates = []
watch = keras.callbacks.LambdaCallback(
    on_epoch_end=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate))
)
x = np.linspace(0, 1, 16).reshape(8, 2)
history = model.fit(x, x.sum(axis=1), batch_size=2, epochs=3, shuffle=False, verbose=0, callbacks=[watch])
assert rates[-1] < rates[0]
