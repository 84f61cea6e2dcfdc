"""RunFolder: what config.json tells of a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import oncue
from oncue.callbacks import RunFolder
from oncue.losses import MeanSquaredError


def test_a_loss_that_no_file_can_hold_is_told_by_its_name_without_a_warning(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 1)
    model = oncue.Model(net)
    x = torch.ones(8, 3)
    for loss, told in [(torch.nn.MSELoss(), "MSELoss()"), ("mse", "mse"), (MeanSquaredError(), "MeanSquaredError")]:
        model.compile("sgd", loss=loss)
        model.fit(x, x[:, :1], verbose=0, callbacks=[RunFolder(tmp_path)])
        assert told in json.dumps(json.loads((tmp_path / "config.json").read_text())["compile"]["loss"])
