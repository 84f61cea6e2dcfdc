"""What the demo leaves: real Keras opens that very file and measures the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import oncue

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.mark.slow
def test_real_keras_opens_what_the_demo_saved(keras: ModuleType, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = re.search(r"Test accuracy of best\.keras: ([\d.]+)", done.stdout)
    assert said is not None, done.stdout
    _, (x, y) = oncue.datasets.digits.load_data()
    x, labels = x.reshape(-1, 64), oncue.utils.to_categorical(y, 10)
    file = tmp_path / "runs" / "demo" / "best.keras"
    theirs, ours = keras.models.load_model(file), oncue.models.load_model(file)
    np.testing.assert_allclose(theirs.predict(x, verbose=0), ours.predict(x, verbose=0), rtol=1e-5, atol=1e-5)
    assert f"{theirs.evaluate(x, labels, verbose=0)[1]:.4f}" == said[1]
