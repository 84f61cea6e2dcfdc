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


def labelled(axes: Any, start: str) -> Any:
    return next(line for line in axes.get_lines() if str(line.get_label()).startswith(start))


def test_the_best_epoch_and_saved_files_are_marked() -> None:
    from oncue.core.journal import Journal
    from oncue.plots import plot_run

    journal = Journal()
    data = {"path": "a.keras", "monitor": "val_acc", "score": 0.9, "before": None}
    journal.write("ModelCheckpoint", what="best_file", kind="best", epoch=1, data=data)
    history = {"loss": [1.0, 0.5, 0.25], "acc": [0.1, 0.5, 0.6], "val_acc": [0.2, 0.9, 0.5]}
    found = panels(plot_run([0, 1, 2], history, {key: [0, 1, 2] for key in history}, journal))
    # Of losses less is better; which accuracy is the best, a callback has said.
    assert list(labelled(found["loss"], "best").get_xdata()) == [3]
    best = labelled(found["acc"], "best")
    assert (best.get_label(), list(best.get_ydata())) == ("best: epoch 2", [0.9])
    assert list(labelled(found["acc"], "saved").get_xdata()) == [2]


def test_many_epochs_are_medians_and_ranges() -> None:
    epochs = list(range(1, 3001))
    axes = plot(epochs, {"loss": [1.0 + epoch % 2 for epoch in epochs]}).axes[0]
    assert len(labelled(axes, "training").get_xdata()) < 400 and len(axes.collections) == 1


def test_one_epoch_does_not_hide_all_others() -> None:
    values = [0.9 + 0.0001 * step for step in range(200)]
    axes = plot(list(range(1, 201)), {"acc": [0.0, *values[1:]]}).axes[0]
    assert axes.get_ylim()[0] > 0.88 and "a value is outside" in [text.get_text() for text in axes.texts]
    assert plot([1, 2, 3], {"acc": [0.0, 0.9, 0.91]}).axes[0].get_ylim()[0] < 0.1


def test_a_notebook_shows_the_picture_of_a_figure_and_of_a_history(tmp_path: Path) -> None:
    history = trained(tmp_path)
    assert history.plot()._repr_png_().startswith(b"\x89PNG")
    shown = history._repr_html_()
    assert 'src="data:image/png;base64,' in shown and "It was stopped by Decides" in shown
    assert "<img" not in keras.callbacks.History()._repr_html_()


def test_text_in_the_account_is_no_html(tmp_path: Path) -> None:
    class Evil(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note("<script>alert(1)</script>")

    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Evil()])
    assert "<script>" not in history._repr_html_() and "&lt;script&gt;" in history._repr_html_()
