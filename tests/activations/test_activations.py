from __future__ import annotations

import pytest
import torch

from helpers import tensor
from oncue import activations, layers


def test_get_takes_names_functions_modules_layers_and_none() -> None:
    assert activations.get("relu") is activations.relu
    assert activations.get("swish") is activations.silu
    assert activations.get(None) is activations.linear
    own = torch.nn.PReLU()
    assert activations.get(own) is own
    layer = layers.LeakyReLU()
    assert activations.get(layer) is layer
    assert activations.get(torch.tanh) is torch.tanh


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'sigmoid'"):
        layers.Dense(1, activation="sigmiod")
    with pytest.raises(ValueError, match="got 3 of type int"):
        activations.get(3)


def test_a_layer_as_activation_survives_the_configuration() -> None:
    layer = layers.Dense(2, activation=layers.LeakyReLU(0.1, name="bend"))
    again = layers.Dense.from_config(layer.get_config())
    assert isinstance(again.activation, layers.LeakyReLU)
    assert again.activation.negative_slope == 0.1


def test_weights_of_an_activation_are_weights_of_the_layer() -> None:
    layer = layers.Dense(2, activation=layers.PReLU())
    layer(tensor(torch.ones(1, 3)))
    assert [weight.shape for weight in layer.weights] == [(3, 2), (2,), (2,)]


def test_own_function_is_written_by_name() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    written = activations.serialize(double)
    assert written["config"] == "double"
    assert activations.deserialize(written, {"double": double}) is double
    with pytest.raises(ValueError, match="Unknown activation: 'double'"):
        activations.deserialize(written)


def test_sparsemax_sums_to_one_and_is_sparse() -> None:
    out = activations.sparsemax(tensor([[3.0, 0.1, 0.2], [0.1, 0.2, 0.3]]))
    torch.testing.assert_close(out.sum(-1), tensor(torch.ones(2)))
    assert out[0].tolist() == [1.0, 0.0, 0.0]
