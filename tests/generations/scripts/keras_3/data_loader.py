import keras
import torch

x, y = torch.rand(20, 4), torch.rand(20, 1)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=5, shuffle=True)
model = keras.Sequential([keras.layers.Dense(8, activation="gelu"), keras.layers.Dense(1)])
model.compile(keras.optimizers.AdamW(1e-3), loss="huber", metrics=["mae"])
history = model.fit(
    loader, epochs=2, validation_data=loader, verbose=0, callbacks=[keras.callbacks.TensorBoard("logs")]
)
