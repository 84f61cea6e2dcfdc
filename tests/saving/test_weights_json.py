"""Weights in several files, `.weights.json` with `max_shard_size`, and objects that are skipped: with real Keras, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oncue
from helpers import same_arrays

SIZE = 0.0004
"""Gigabytes: less than the weights of the models below, more than the largest of them."""


def model(keras: Any, seed: int, optimizer: str = "adam") -> Any:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(300, name="first"),
            layers.Dense(300, name="second"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="last"),
        ]
    )
    made.compile(optimizer, "mse")
    return made


def trained(keras: Any, seed: int) -> Any:
    made = model(keras, seed)
    made.fit(np.ones((4, 100)), np.ones((4, 2)), verbose=0)
    return made


def state(made: Any) -> list[Any]:
    own = made.optimizer.variables
    return [np.asarray(one) for one in made.get_weights()] + [oncue.ops.convert_to_numpy(one) for one in own]


def fresh(keras: Any) -> Any:
    # The optimizer has all its variables after a step.
    return trained(keras, 9)


def test_each_reads_what_the_other_has_written(tmp_path: Path, keras: Any) -> None:
    for writer, reader in [(oncue, oncue), (oncue, keras), (keras, oncue)]:
        path = tmp_path / f"{writer.__name__}-{reader.__name__}" / "m.weights.json"
        path.parent.mkdir()
        source, target = trained(writer, 1), fresh(reader)
        source.save_weights(path, max_shard_size=SIZE)
        parts = sorted(path.parent.glob("*.h5"))
        assert [part.name for part in parts[:2]] == ["m_00000.weights.h5", "m_00001.weights.h5"]
        assert len(parts) > 2 and all(part.stat().st_size < SIZE * 2**30 + 20_000 for part in parts)
        target.load_weights(path)
        assert same_arrays(state(source), state(target))


def test_a_keras_model_in_oncue_s_loop(tmp_path: Path, keras: Any) -> None:
    source, target = oncue.Model(trained(keras, 1)), oncue.Model(fresh(keras))
    source.save_weights(tmp_path / "m.weights.json", max_shard_size=SIZE)
    target.load_weights(tmp_path / "m.weights.json")
    assert same_arrays(source.get_weights(), target.get_weights())
    plain = fresh(keras)
    plain.load_weights(tmp_path / "m.weights.json")
    assert same_arrays(source.get_weights(), plain.get_weights())


def test_the_map_is_keras_s(tmp_path: Path, keras: Any) -> None:
    maps = []
    for writer in (oncue, keras):
        folder = tmp_path / writer.__name__
        folder.mkdir()
        trained(writer, 1).save_weights(folder / "m.weights.json", max_shard_size=SIZE)
        maps.append(json.loads((folder / "m.weights.json").read_text()))
    assert maps[0]["weight_map"] == maps[1]["weight_map"]
    assert maps[0]["metadata"] == maps[1]["metadata"]


def test_a_save_replaces_the_one_before_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.weights.json"
    first, second, target = trained(oncue, 1), trained(oncue, 2), fresh(oncue)
    first.save_weights(path, max_shard_size=SIZE)
    from oncue.saving import weights_json

    written: list[Path] = []

    def full(tree: Any, part: Path) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(part)
        write(tree, part)

    write = weights_json.write_hdf5
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(weights_json, "write_hdf5", full)
        second.save_weights(path, max_shard_size=SIZE)
    target.load_weights(path)
    assert same_arrays(state(first), state(target))
    assert not any(part.exists() for part in written)
    second.save_weights(path, max_shard_size=1)
    target.load_weights(path)
    assert same_arrays(state(second), state(target))
    assert len(list(tmp_path.iterdir())) == 2


def test_with_the_ending_of_one_file_it_is_renamed_as_in_keras(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"m\.weights\.json"):
        trained(oncue, 1).save_weights(tmp_path / "m.weights.h5", max_shard_size=1)
    assert (tmp_path / "m.weights.json").exists() and (tmp_path / "m_00000.weights.h5").exists()


@pytest.mark.parametrize(
    ("name", "size", "text"),
    [
        ("m.weights.json", None, r"max_shard_size=5"),
        ("m.weights.json", 1e-9, r"layers/dense/vars/0.*120,000 bytes"),
        ("m.weights.json", 0, r"`max_shard_size` must be a positive number of gigabytes"),
        ("m.weights.json", True, r"`max_shard_size` must be a positive number of gigabytes"),
        ("m.weights.json", "2GB", r"`max_shard_size` must be a positive number of gigabytes.*'2GB'"),
        ("m.safetensors", 1, r"`max_shard_size` is for \.weights\.json"),
        ("memory://m.weights.json", 1, r"can't be at a URL"),
    ],
)
def test_what_can_t_be_written_is_refused(tmp_path: Path, name: str, size: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        model(oncue, 1).save_weights(name if "://" in name else tmp_path / name, max_shard_size=size)
    assert not list(tmp_path.iterdir())


def changed(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def elsewhere(name: str) -> Any:
    return lambda content: content["weight_map"].update({"/layers/dense/vars": [name]})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (elsewhere("../m_00000.weights.h5"), "of its own folder"),
        (elsewhere("/etc/passwd"), "of its own folder"),
        (elsewhere("C:m.weights.h5"), "of its own folder"),
        (elsewhere("gone.weights.h5"), r"gone\.weights\.h5"),
        (elsewhere(7), "names its files"),  # type: ignore[arg-type]  # a damaged file
        (lambda content: content.update(weight_map=3), "names its files"),
        (
            lambda content: content["weight_map"].update({f"/{i}": [f"{i}.weights.h5"] for i in range(10_001)}),
            "more than",
        ),
    ],
)
def test_a_map_that_leads_elsewhere_is_refused(tmp_path: Path, change: Any, text: str) -> None:
    path = tmp_path / "m.weights.json"
    source, target = trained(oncue, 1), fresh(oncue)
    source.save_weights(path, max_shard_size=SIZE)
    changed(path, change)
    before = state(target)
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        target.load_weights(path)
    assert same_arrays(before, state(target))


def test_what_is_in_two_files_and_what_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.json"
    source, target = trained(oncue, 1), fresh(oncue)
    source.save_weights(path, max_shard_size=SIZE)
    part = tmp_path / "m_00001.weights.h5"
    content = part.read_bytes()
    part.write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    with pytest.raises(ValueError, match=r"m_00001\.weights\.h5.*changed"):
        target.load_weights(path)
    with h5py.File(part, "w") as file:
        file["layers/dense/vars/0"] = np.ones((100, 300), "float32")
    with pytest.raises(ValueError, match=r"layers/dense/vars/0.*two"):
        target.load_weights(path)


@pytest.mark.parametrize("name", ["m.weights.h5", "m.weights.json"])
def test_objects_are_skipped_as_in_keras(tmp_path: Path, keras: Any, name: str) -> None:
    found = []
    more = {} if name.endswith("h5") else {"max_shard_size": SIZE}
    for library in (oncue, keras):
        path = tmp_path / library.__name__ / name
        path.parent.mkdir()
        source, target = trained(library, 1), fresh(library)
        source.set_weights([weight + 1 for weight in source.get_weights()])
        source.optimizer.iterations.assign(7)
        source.save_weights(path, **more)
        before = target.get_weights()
        target.load_weights(path, objects_to_skip=[target.layers[1], target.optimizer])
        found.append([bool(np.array_equal(a, b)) for a, b in zip(target.get_weights(), before, strict=True)])
        assert int(target.optimizer.iterations) == 1
    assert found[0] == found[1]
    assert sum(found[0]) == 2 and found[0][2:4] == [True, True]


def test_objects_that_a_save_skips(tmp_path: Path, keras: Any) -> None:
    for library in (oncue, keras):
        source, target = trained(library, 1), fresh(library)
        path = tmp_path / f"{library.__name__}.weights.h5"
        library.saving.save_weights(source, path, objects_to_skip=[source.layers[1]])
        with h5py.File(path) as file:
            assert "dense_1" not in file["layers"]
        target.load_weights(path, objects_to_skip=[target.layers[1]])
        assert same_arrays(source.layers[0].get_weights(), target.layers[0].get_weights())


def test_what_is_no_object_of_the_model_is_refused(tmp_path: Path) -> None:
    source = trained(oncue, 1)
    source.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"`objects_to_skip`.*'second'.*model\.get_layer"):
        source.load_weights(tmp_path / "m.weights.h5", objects_to_skip=["second"])
    source.save_weights(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"`objects_to_skip` is only for"):
        source.load_weights(tmp_path / "m.safetensors", objects_to_skip=[source.layers[0]])
