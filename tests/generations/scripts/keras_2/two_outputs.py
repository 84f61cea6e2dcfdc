from keras.models import Model
from keras.layers import Input, Dense, Embedding, LSTM, concatenate
from keras.callbacks import ModelCheckpoint
import numpy as np

main_input = Input(shape=(6,), dtype="int32", name="main_input")
x = Embedding(output_dim=8, input_dim=30, input_length=6)(main_input)
lstm_out = LSTM(4)(x)
auxiliary_output = Dense(1, activation="sigmoid", name="aux_output")(lstm_out)
auxiliary_input = Input(shape=(3,), name="aux_input")
x = concatenate([lstm_out, auxiliary_input])
main_output = Dense(1, activation="sigmoid", name="main_output")(x)
model = Model(inputs=[main_input, auxiliary_input], outputs=[main_output, auxiliary_output])
model.compile(
    optimizer="rmsprop",
    loss={"main_output": "binary_crossentropy", "aux_output": "binary_crossentropy"},
    loss_weights={"main_output": 1.0, "aux_output": 0.2},
)
headline, extra = np.random.randint(0, 30, (16, 6)), np.random.rand(16, 3)
labels = np.arange(16)[:, None] % 2
history = model.fit(
    {"main_input": headline, "aux_input": extra},
    {"main_output": labels, "aux_output": labels},
    epochs=2,
    batch_size=8,
    verbose=0,
    callbacks=[ModelCheckpoint("two.{epoch}.h5", monitor="loss")],
)
assert sorted(history.history) == ["aux_output_loss", "loss", "main_output_loss"]
