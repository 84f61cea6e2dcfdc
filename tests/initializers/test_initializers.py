from __future__ import annotations

import numpy as np
import pytest
import torch

from oncue import initializers, layers


@pytest.mark.parametrize("name", ["glorot_uniform", "GlorotUniform", "he_normal", "orthogonal", "uniform", "normal"])
def test_torch_seed_decides_without_a_seed(name: str) -> None:
    draw = initializers.get(name)
    torch.manual_seed(3)
    first, second = draw((4, 5)), draw((4, 5))
    torch.manual_seed(3)
    assert torch.equal(draw((4, 5)), first)
    assert not torch.equal(first, second)


def test_a_seed_gives_the_same_values_and_leaves_torch_alone() -> None:
    draw = initializers.HeNormal(seed=5)
    before = torch.get_rng_state()
    assert torch.equal(draw((4, 5)), draw((4, 5)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "shape", "deviation"),
    [
        ("glorot_normal", (200, 300), (2 / 500) ** 0.5),
        ("glorot_uniform", (3, 3, 64, 32), (2 / (9 * 96)) ** 0.5),
        ("he_uniform", (400, 100), (2 / 400) ** 0.5),
        ("lecun_normal", (400, 100), (1 / 400) ** 0.5),
        ("uniform", (400, 100), 0.1 / 12**0.5),
    ],
)
def test_spread(name: str, shape: tuple[int, ...], deviation: float) -> None:
    torch.manual_seed(0)
    values = initializers.get(name)(shape)
    assert values.std().item() == pytest.approx(deviation, rel=0.03)
    assert abs(values.mean().item()) < deviation / 10


def test_orthogonal_of_a_wide_and_of_a_tall_matrix() -> None:
    for shape in ((3, 8), (8, 3), (2, 2, 2, 3)):
        matrix = initializers.Orthogonal(gain=2.0)(shape).reshape(-1, shape[-1])
        small = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
        torch.testing.assert_close(small @ small.T, 4 * torch.eye(len(small)), atol=1e-5, rtol=0)


def test_orthogonal_in_half_the_precision_is_that_of_float32_rounded() -> None:
    precise, half = (initializers.Orthogonal(seed=1)((4, 3), dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, precise.to(torch.bfloat16))


def test_arrays_functions_and_classes_are_initializers() -> None:
    values = np.arange(6.0).reshape(2, 3)
    layer = layers.Dense(
        3, kernel_initializer=values, bias_initializer=lambda shape, dtype=None: torch.full(shape, 7.0)
    )
    layer.build((None, 2))
    np.testing.assert_array_equal(layer.get_weights()[0], values)
    np.testing.assert_array_equal(layer.get_weights()[1], [7.0, 7.0, 7.0])
    assert isinstance(initializers.get(initializers.HeNormal), initializers.HeNormal)
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*\(3, 2\)"):
        initializers.get(values)((3, 2))


def test_constant_takes_arrays_and_writes_them_as_lists() -> None:
    draw = initializers.Constant(np.array([1.0, 2.0]))
    assert draw((3, 2)).tolist() == [[1.0, 2.0]] * 3
    assert initializers.deserialize(initializers.serialize(draw))((2,)).tolist() == [1.0, 2.0]


def test_errors_name_the_way_out() -> None:
    with pytest.raises(ValueError, match="Did you mean 'glorot_uniform'"):
        initializers.get("glorot_unifrom")
    with pytest.raises(ValueError, match="Did you mean 'fan_in'"):
        initializers.VarianceScaling(mode="fan_inn")
    with pytest.raises(ValueError, match="greater than 0"):
        initializers.VarianceScaling(scale=0.0)
    with pytest.raises(ValueError, match="whole number"):
        initializers.RandomNormal(seed=0.5)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(ValueError, match="2 axes"):
        initializers.Orthogonal()((3,))
    with pytest.raises(ValueError, match="2 axes"):
        initializers.Identity()((3, 3, 3))


def test_custom_classes_are_found_by_custom_objects_only() -> None:
    class Mine(initializers.Initializer):
        def __call__(self, shape: object, dtype: object = None) -> torch.Tensor:
            return torch.zeros(shape)  # type: ignore[call-overload]  # a tuple of numbers

    written = initializers.serialize(Mine())
    assert written["registered_name"] == "Mine"
    assert isinstance(initializers.deserialize(written, {"Mine": Mine}), Mine)
    with pytest.raises(ValueError, match="Unknown initializer: 'Mine'"):
        initializers.deserialize(written)


def test_no_module_is_imported_by_a_name_in_a_configuration() -> None:
    evil = {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": "os>system"}
    with pytest.raises(ValueError, match="Unknown"):
        initializers.deserialize(evil)
    with pytest.raises(ValueError, match="Unknown"):
        layers.deserialize(evil)
