"""What layers compute, where real Keras is no measure: torch beside them, training switches, masks, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers import tensor
from oncue import layers
from oncue.layers.rnn_cell import one_chunk


def test_integers_and_doubles_are_cast_to_the_weights() -> None:
    for layer, shape in ((layers.Dense(3), (2, 4)), (layers.Conv1D(3, 2), (2, 4, 3)), (layers.LSTM(3), (2, 4, 3))):
        for kind in (torch.int64, torch.uint8, torch.float64, torch.float16):
            assert layer(tensor(torch.ones(shape, dtype=kind))).dtype == torch.float32
        assert layer(np.ones(shape)).dtype == torch.float32


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_same_padding_is_tensorflows(size: int, stride: int, window: int) -> None:
    # TensorFlow: as many outputs as ceil(size / stride), and the odd step of padding at the end.
    out = -(-size // stride)
    total = max((out - 1) * stride + window - size, 0)
    x = tensor(torch.randn(1, size, 1))
    layer = layers.Conv1D(1, window, strides=stride, padding="same", use_bias=False)
    found = layer(x)
    padded = F.pad(x.movedim(-1, 1), (total // 2, total - total // 2))
    expected = F.conv1d(padded, layer.stored("kernel"), stride=stride).movedim(1, -1)
    assert found.shape[1] == out
    torch.testing.assert_close(found, expected)


def test_means_at_the_border_count_real_numbers_only() -> None:
    x = tensor([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 5, 1)
    pooled = layers.AveragePooling1D(2, strides=2, padding="same")(x)
    assert pooled.flatten().tolist() == [1.5, 3.5, 5.0]


def test_negative_numbers_survive_max_pooling_with_padding() -> None:
    x = -tensor(torch.ones(1, 3, 3, 1))
    assert layers.MaxPooling2D(2, padding="same")(x).unique().tolist() == [-1.0]


def test_images_are_not_copied_on_the_way_into_a_convolution() -> None:
    x = tensor(torch.randn(2, 8, 8, 3))
    seen: list[int] = []
    layer = layers.Conv2D(4, 3)
    layer(x)
    original = F.conv2d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "conv2d", lambda x, *args: (seen.append(x.data_ptr()), original(x, *args))[1])
        out = layer(x)
    assert seen == [x.data_ptr()]
    # And it comes out channels last, so that Flatten is free.
    assert out.is_contiguous()


def test_dropout_drops_in_training_only_and_keeps_the_mean() -> None:
    x = tensor(torch.ones(100, 100))
    layer = layers.Dropout(0.25)
    assert torch.equal(layer(x), x)
    out = layer(x, training=True)
    assert out.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert abs(out.mean().item() - 1) < 0.05
    assert not layers.Dropout(1.0)(x, training=True).any()
    assert torch.equal(layers.Dropout(0)(x, training=True), x)


def test_dropout_with_a_noise_shape_drops_whole_rows() -> None:
    out = layers.Dropout(0.5, noise_shape=(None, 1))(tensor(torch.ones(50, 4)), training=True)
    assert all(len(set(row.tolist())) == 1 for row in out)


def test_batch_normalization_is_frozen_by_trainable() -> None:
    x = tensor(torch.randn(8, 3)) * 5 + 2
    layer = layers.BatchNormalization()
    layer(x)
    layer.trainable = False
    before = [w.copy() for w in layer.get_weights()]
    out = layer(x, training=True)
    torch.testing.assert_close(out, x / np.sqrt(1 + 1e-3), atol=1e-5, rtol=1e-5)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_moving_statistics_are_buffers_and_last() -> None:
    layer = layers.BatchNormalization()
    layer(tensor(torch.ones(2, 3)))
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [w.name for w in layer.non_trainable_weights] == ["moving_mean", "moving_variance"]
    assert set(layer.state_dict()) == {"gamma", "beta", "moving_mean", "moving_variance"}


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_the_loop_computes_what_the_fused_kernel_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = getattr(layers, name)(4, return_sequences=True, return_state=True)
    x = tensor(torch.randn(3, 6, 2))
    results = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(type(layer.cell), "fused", lambda self, inputs, states: None)
        layer.zero_grad()
        out, *states = layer(x)
        (out.square().sum() + states[-1].sum()).backward()
        results.append([out, *states, *(p.grad for p in layer.parameters())])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("biases", [0, 2])
def test_cudnn_gets_one_block_with_room_for_two_biases(biases: int) -> None:
    with FakeTensorMode():
        shapes = [(16, 3), (16, 4), (16,), (16,)][: 2 + biases]
        views = one_chunk([torch.empty(shape, device="cuda") for shape in shapes])
    assert [tuple(view.shape) for view in views] == shapes
    assert [view.storage_offset() for view in views] == [0, 48, 112, 128][: 2 + biases]
    assert {view.untyped_storage().nbytes() for view in views} == {4 * (48 + 64 + 16 + 16)}


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent_dropout_acts_in_training_only(name: str) -> None:
    x = tensor(torch.randn(3, 6, 2))
    for options in ({"recurrent_dropout": 0.5}, {"dropout": 0.5}):
        layer: Any = getattr(layers, name)(4, **options)
        torch.testing.assert_close(layer(x), layer(x))
        assert not torch.equal(layer(x, training=True), layer(x, training=True))


def test_a_stateful_layer_refuses_another_batch_size_until_reset() -> None:
    layer = layers.GRU(3, stateful=True)
    layer(tensor(torch.randn(4, 5, 2)))
    with pytest.raises(ValueError, match=r"states of 4 samples; got a batch of 2"):
        layer(tensor(torch.randn(2, 5, 2)))
    layer.reset_state()
    layer(tensor(torch.randn(2, 5, 2)))


def test_a_stateful_layer_that_was_run_for_predictions_is_reset_in_place() -> None:
    layer = layers.GRU(3, stateful=True)
    x = tensor(torch.randn(4, 5, 2))
    with torch.inference_mode():
        first = layer(x).clone()
    kept = layer.states
    assert kept is not None and bool(kept[0].any())
    layer.reset_state()
    assert layer.states is kept and not kept[0].any()
    torch.testing.assert_close(layer(x, training=True), first.clone())


def test_a_stateful_layer_trains_over_batches() -> None:
    layer = layers.LSTM(3, stateful=True)
    for _ in range(2):
        layer(tensor(torch.randn(4, 5, 2)), training=True).sum().backward()


def test_own_cells_run_in_rnn() -> None:
    class Sum(layers.Layer):
        state_size = 2

        def call(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            total = states[0] + inputs
            return total, [total]

    x = tensor(torch.arange(12.0)).reshape(2, 3, 2)
    out = layers.RNN(Sum(), return_sequences=True)(x)
    torch.testing.assert_close(out, x.cumsum(1))
    mask = tensor([[True, False, True], [True, True, True]])
    torch.testing.assert_close(layers.RNN(Sum())(x, mask=mask)[0], x[0, 0] + x[0, 2])


def test_symbolic_calls_give_shapes_without_data() -> None:
    x = layers.Input((12, 3))
    assert layers.LSTM(4, return_sequences=True)(x).shape == (None, 12, 4)
    out, h, c = layers.LSTM(4, return_state=True)(x)
    assert (out.shape, h.shape, c.shape) == ((None, 4),) * 3
    assert layers.Bidirectional(layers.GRU(4))(x).shape == (None, 8)
    assert layers.Flatten()(x).shape == (None, 36)
    assert layers.Flatten()(layers.Input((3,), dtype="int32")).dtype == "int32"
    assert layers.concatenate([x, x]).shape == (None, 12, 6)
    assert layers.Add()([x, layers.Input((1, 3))]).shape == (None, 12, 3)
    assert layers.TimeDistributed(layers.Dense(7))(x).shape == (None, 12, 7)
    assert layers.Reshape((-1, 4))(x).shape == (None, 9, 4)


def test_normalization_adapts_batch_by_batch() -> None:
    x = np.random.default_rng(0).normal(3, 2, size=(50, 4)).astype("float32")
    whole, parts = layers.Normalization(), layers.Normalization()
    whole.adapt(x)
    parts.adapt([x[:7], x[7:30], x[30:]])
    for one, two in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)
    np.testing.assert_allclose(whole.get_weights()[1], x.var(0), rtol=1e-5)


def test_masks_merge() -> None:
    one, two = tensor(torch.ones(1, 3, 2)), tensor(torch.ones(1, 3, 2))
    embed = layers.Embedding(5, 2, mask_zero=True)
    a, b = embed(tensor([[1, 0, 0]])), embed(tensor([[1, 2, 0]]))
    assert layers.Add()([a, b])._keras_mask.tolist() == [[True, True, False]]
    assert layers.Concatenate()([a, b])._keras_mask.tolist() == [[True, True, False]]
    assert getattr(layers.Add()([one, two]), "_keras_mask", None) is None


@pytest.mark.parametrize("make", [lambda: layers.Dense(3), lambda: layers.BatchNormalization(), lambda: layers.LSTM(3)])
def test_an_explicit_build_is_not_repeated(make: Any) -> None:
    layer = make()
    layer.build((None, 5, 4))
    weights = [weight.stored for weight in layer.weights]
    layer(tensor(torch.ones(2, 5, 4)))
    assert [id(weight.stored) for weight in layer.weights] == [id(weight) for weight in weights]
