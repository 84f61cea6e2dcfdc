"""Pictures of a run: what is drawn, from History and from CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue as keras
from oncue.callbacks import Callback, CSVLogger
from oncue.cli import main
from oncue.plots import Event, aligned, plot, plot_csv

pytest.importorskip("matplotlib")


def panels(figure: Any) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def curves(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


class Decides(Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = 0.1 / (epoch + 1)
        if epoch == 1:
            self.note("halved", kind="learning_rate")
        if epoch == 3:
            self.note("enough", kind="stop")
            self.note("back to epoch 2", kind="restore", epoch=1)
            self.model.stop_training = True


def trained(tmp_path: Path, **kwargs: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    callbacks = [Decides(), CSVLogger(tmp_path / "log.csv")]
    return model.fit(x, y, epochs=6, validation_data=(x, y), verbose=0, callbacks=callbacks, **kwargs)


def test_history_draws_each_metric_beside_its_validation(tmp_path: Path) -> None:
    history = trained(tmp_path)
    figure = history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    found = panels(figure)
    assert list(found) == ["loss", "mae", "learning rate"]
    lines = curves(found["loss"])
    assert lines["training"] == history.history["loss"]
    assert lines["validation"] == history.history["val_loss"]
    marks = {line.get_label(): line.get_xdata()[0] for line in found["loss"].get_lines()}
    assert (marks["rate cut"], marks["stopped"], marks["weights kept"]) == (2, 4, 2)


def test_the_csv_file_gives_the_same_curves(tmp_path: Path) -> None:
    history = trained(tmp_path)
    lines = curves(panels(keras.plot_csv(tmp_path / "log.csv"))["mae"])
    assert lines["validation"] == history.history["val_mae"]


def test_validation_every_second_epoch(tmp_path: Path) -> None:
    history = trained(tmp_path, validation_freq=2)
    axes = panels(history.plot())["loss"]
    validation = next(line for line in axes.get_lines() if line.get_label() == "validation")
    assert list(validation.get_xdata()) == [2, 4]
    again = panels(plot_csv(tmp_path / "log.csv"))["loss"]
    assert list(next(line for line in again.get_lines() if line.get_label() == "validation").get_xdata()) == [2, 4]


@pytest.mark.parametrize("count", [1, 3, 3000])
def test_legends_never_cover_curves(count: int) -> None:
    epochs = list(range(1, count + 1))
    values = [1.0 / epoch for epoch in epochs]
    figure = plot(epochs, {"loss": values, "val_loss": values}, [Event(count, "stop")])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1


def test_values_that_are_not_finite_leave_a_gap() -> None:
    axes = plot([1, 2, 3], {"loss": [1.0, float("nan"), 0.5]}).axes[0]
    assert curves(axes) and list(axes.get_lines()[0].get_xdata()) == [1, 3]


def test_many_changes_of_the_rate_are_not_marked_one_by_one() -> None:
    epochs = list(range(1, 101))
    axes = plot(epochs, {"loss": [1.0] * 100}, [Event(epoch, "learning_rate") for epoch in epochs]).axes[0]
    assert len(axes.get_lines()) == 1


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot([], {})
    assert aligned([1, 2], {"loss": [1.0]}, {"loss": [2]}) == {"loss": [None, 1.0]}


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    picture = tmp_path / "out.png"
    assert main(["plot", str(tmp_path / "log.csv"), "-o", str(picture)]) == 0
    assert picture.stat().st_size > 10_000
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main(["plot", str(tmp_path / "other.csv")]) == 2
    assert "column 'epoch'" in capsys.readouterr().err
