"""`oncue check`: what becomes of each name, in scripts, notebooks and folders, which are never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oncue.cli import main
from oncue.cli.scripts import BY_KERAS, MISSING, OLD, RUNS, classify, names_of

CASES = [
    ("oncue.layers.Dense", RUNS, ""),
    ("oncue.keras.callbacks.EarlyStopping", RUNS, ""),
    ("oncue.Sequential", RUNS, ""),
    ("oncue.__version__", RUNS, ""),
    ("oncue.callbacks.EarlyStopping.on_epoch_end", RUNS, ""),
    ("oncue.optimizers.legacy.Adam", RUNS, ""),
    ("oncue.layers.experimental.preprocessing.Rescaling", RUNS, ""),
    ("oncue.datasets.cifar10.load_data", RUNS, ""),
    ("oncue.layers.MultiHeadAttention", BY_KERAS, ""),
    ("oncue.ops.mean", BY_KERAS, ""),
    ("oncue.applications.vgg16.VGG16", BY_KERAS, ""),
    ("oncue.layers.core.Dense", OLD, "use layers.Dense"),
    ("oncue.objectives", OLD, "use losses"),
    ("oncue.backend.mean", OLD, "use ops.mean"),
    ("oncue.python.keras.engine.topology.Layer", OLD, "use layers.Layer"),
    ("oncue.reduce_mean", OLD, "use ops.mean"),
    ("oncue.data.Dataset.from_tensor_slices", OLD, "use torch.utils.data"),
    ("oncue.preprocessing.image.ImageDataGenerator", OLD, "image_dataset_from_directory"),
    ("oncue.config.experimental.set_memory_growth", OLD, "leave it out"),
    ("oncue.GradientTape", MISSING, "torch's autograd"),
    ("oncue.layers.Highway", MISSING, "Keras 2 took it out"),
    ("oncue.layers.core.Highway", MISSING, "Keras 2 took it out"),
    ("oncue.layers.Densee", MISSING, "did you mean Dense"),
    ("oncue.layers.JaxLayer", MISSING, "JAX"),
    ("oncue.wrappers.scikit_learn.KerasClassifier", MISSING, "SKLearnClassifier"),
    ("oncue.strange", MISSING, ""),
    ("oncue.callbacks.Dense", MISSING, "use layers.Dense"),
]


@pytest.mark.parametrize(("name", "kind", "advice"), CASES, ids=[case[0] for case in CASES])
def test_what_becomes_of_a_name(name: str, kind: str, advice: str) -> None:
    found = classify(name)
    assert found.kind == kind, found
    assert advice in found.advice


def test_names_are_found_however_they_are_imported(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import tensorflow as tf, os\n"
        "from tensorflow.keras import layers as L\n"
        "import keras.backend as K\n"
        "from keras.models import *\n"
        "def Model(): pass\n"
        "x = Sequential([L.Dense(output_dim=3), tf.keras.layers.ReLU()])\n"
        "K.mean(x); Model(); os.path; self.layers.Nothing\n"
        "x.fit(nb_epoch=3, epochs=3).to_yaml()\n"
        "x.fit_generator(3)\n"
        "keras.layers.Unbound\n"
        "L.Embedding(3, 3, dropout=0.2)\n"
    )
    found = {one.name: (one.kind, one.lines) for one in names_of(script)}
    assert found == {
        "layers": (RUNS, [2]),
        "backend": (RUNS, [3]),
        "models.Sequential": (RUNS, [6]),
        "layers.Dense": (RUNS, [6]),
        "Dense(output_dim=)": (OLD, [6]),
        "layers.ReLU": (RUNS, [6]),
        "backend.mean": (OLD, [7]),
        "fit(nb_epoch=)": (OLD, [8]),
        ".to_yaml": (MISSING, [8]),
        ".fit_generator": (OLD, [9]),
        "layers.Embedding": (RUNS, [11]),
        "Embedding(dropout=)": (MISSING, [11]),
    }


def test_the_script_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("import keras\nopen('ran', 'w')\nkeras.layers.Dense(3)\nraise SystemExit(3)\n")
    assert main(["check", str(script)]) == 0
    assert not Path("ran").exists() and "layers.Dense" in capsys.readouterr().out


def test_the_answer_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("import tensorflow as tf\ntf.GradientTape()\ntf.keras.ops.mean\n")
    assert main(["check", str(script), "--json"]) == 1
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["counts"] == {"runs": 0, "runs by Keras": 1, "old word": 0, "missing": 1}
    assert answer["names"][0]["name"] == "GradientTape" and "torch's autograd" in answer["names"][0]["advice"]


def test_a_folder_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "good.py").write_text("from keras.layers import Dense\n")
    (tmp_path / "inner" / "bad.py").write_text("import tensorflow as tf\ntf.GradientTape, tf.strange\n")
    (tmp_path / "other.py").write_text("import numpy\n")
    (tmp_path / "old.py").write_text("import keras\nprint 'python 2'\n")
    notebook = {"cells": [{"cell_type": "code", "source": ["%matplotlib inline\n", "import keras\n", "keras.Model"]}]}
    (tmp_path / "book.ipynb").write_text(json.dumps(notebook))
    assert main(["check", str(tmp_path), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    rows = {row["script"]: row for row in answer["scripts"]}
    assert set(rows) == {"good.py", "inner/bad.py", "old.py", "book.ipynb"}
    assert rows["inner/bad.py"]["missing names"] == "GradientTape, strange"
    assert rows["book.ipynb"]["runs"] == 1 and "line 2" in rows["old.py"]["missing names"]
    assert {one["name"]: one["scripts"] for one in answer["missing"]} == {"GradientTape": 1, "strange": 1}
    assert answer["complete"] == 2
    assert main(["check", str(tmp_path)]) == 1
    assert "Of 3 scripts, 2 use only names that run." in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"print 'python 2'", b"\x00", b"(" * 3000, b"x = " + b"-" * 100_000 + b"1"])
def test_what_is_no_script_is_said(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script.py").write_bytes(content)
    assert main(["check", str(tmp_path / "script.py")]) == 2
    assert "script" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"cell_type": "code", "source": 3}]}']
)
def test_what_is_no_notebook_is_said(content: str, tmp_path: Path) -> None:
    (tmp_path / "book.ipynb").write_text(content)
    assert main(["check", str(tmp_path / "book.ipynb")]) == 2


def test_a_folder_without_scripts_and_nothing_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert "no scripts that use Keras" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "nowhere.py")]) == 2
    (tmp_path / "plain.py").write_text("print(1)\n")
    assert main(["check", str(tmp_path / "plain.py")]) == 0
    assert "uses no names" in capsys.readouterr().out
