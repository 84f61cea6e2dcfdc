"""`hosts.Lightning`: what the matrix doesn't show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts_matrix import X, Y, loader, network
from processes import run_bounded

from helpers import cpu_only
from oncue import hosts
from oncue.callbacks import (
    BackupAndRestore,
    CallbackList,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    Preemption,
    ReduceLROnPlateau,
    SwapEMAWeights,
)

pytestmark = [
    cpu_only("another library's loop, on the CPU"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

if find_spec("lightning") is not None:
    import lightning
    from lightning.pytorch import callbacks as theirs

    class Module(lightning.LightningModule):
        """A module whose scheduler goes by the update."""

        def __init__(self, schedule: Callable[..., Any] | None = None) -> None:
            super().__init__()
            self.net = network()
            self.schedule = schedule

        def training_step(self, batch: Any, index: int) -> Any:
            return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            if self.schedule is None:
                return optimizer
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}

    def fit(*adapters: Any, module: Any = None, **options: Any) -> Any:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer = lightning.Trainer(
            accelerator="cpu", callbacks=list(adapters), **{"max_epochs": 4, **quiet, **options}
        )
        trainer.fit(Module() if module is None else module, loader(), loader())
        return trainer

    def linear(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 100)

    def test_a_rate_that_is_lowered_stays_lowered_under_the_scheduler() -> None:
        adapter = hosts.Lightning(ReduceLROnPlateau(patience=0, factor=0.5, min_delta=10))
        fit(adapter, module=Module(linear))
        # Three updates in an epoch; the rate is halved after the second and the third.
        expected = [0.1 * (1 - step / 100) * share for step, share in ((2, 1), (5, 1), (8, 0.5), (11, 0.25))]
        assert adapter.history.history["learning_rate"] == pytest.approx(expected)

    def test_a_scheduler_that_decides_itself() -> None:
        def plateau(optimizer: Any) -> Any:
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

        class Watching(Module):
            def configure_optimizers(self) -> Any:
                found = super().configure_optimizers()
                found["lr_scheduler"]["monitor"] = "val_loss"
                return found

        with pytest.raises(ValueError, match="so does the loop's own ReduceLROnPlateau"):
            fit(hosts.Lightning(LearningRateScheduler(lambda epoch: 0.1)), module=Watching(plateau))

    def test_values_of_an_older_epoch_are_left_out() -> None:
        adapter = hosts.Lightning(EarlyStopping(patience=9))
        fit(adapter, check_val_every_n_epoch=2)
        assert len(adapter.history.history["loss"]) == 4
        assert adapter.history.logged_in["val_loss"] == [1, 3]

    def test_a_stop_that_the_trainer_overrules_is_told() -> None:
        adapter = hosts.Lightning(EarlyStopping("loss", patience=1, min_delta=100))
        fit(adapter, min_epochs=3)
        assert adapter.history.epoch == [0, 1, 2]
        assert "Lightning's Trainer went on" in adapter.history.explain()

    def test_a_stop_in_the_middle_of_an_epoch() -> None:
        seen: list[int] = []

        def stop(batch: int, logs: Any) -> None:
            seen.append(batch)
            if batch == 1:
                listener.model.stop_training = True

        listener = LambdaCallback(on_train_batch_end=stop)
        adapter = hosts.Lightning(listener)
        fit(adapter)
        assert seen == [0, 1]
        assert adapter.history.epoch == [0]

    def test_the_loss_of_accumulated_batches_is_whole() -> None:
        plain, accumulated = hosts.Lightning(), hosts.Lightning(LambdaCallback(on_train_begin=lambda logs: None))
        fit(plain, max_epochs=1, module=Frozen())
        fit(accumulated, max_epochs=1, module=Frozen(), accumulate_grad_batches=3)
        assert accumulated.history.history["loss"] == pytest.approx(plain.history.history["loss"])

    class Frozen(Module):
        """One that learns nothing, so that its losses can be compared."""

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    def test_several_adapters_have_states_of_their_own() -> None:
        one, two = hosts.Lightning(EarlyStopping()), hosts.Lightning(ReduceLROnPlateau())
        assert one.state_key != two.state_key
        fit(one, two, max_epochs=1)
        assert one.history.epoch == two.history.epoch == [0]

    @pytest.mark.parametrize(
        ("callback", "text"),
        [
            (lambda: ModelCheckpoint("a.keras"), "ModelCheckpoint needs a file of the whole model"),
            (lambda: BackupAndRestore("backup"), "ckpt_path='last'"),
            (SwapEMAWeights, "EMAWeightAveraging"),
        ],
    )
    def test_what_lightning_lacks_is_refused_when_it_is_made(callback: Callable[[], Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            hosts.Lightning(callback())

    def test_its_callbacks_in_our_lists() -> None:
        for callback, text in [
            (theirs.EarlyStopping("loss"), r"of Lightning, EarlyStopping.*use `oncue\.callbacks\.EarlyStopping`"),
            (theirs.ModelCheckpoint(), r"use `oncue\.callbacks\.ModelCheckpoint`"),
            (theirs.LearningRateMonitor(), r"TensorBoard` writes the learning rate"),
            (hosts.Lightning(), "give the callbacks that it carries"),
        ]:
            with pytest.raises(TypeError, match=text):
                CallbackList([callback])

    def test_a_validation_alone_and_a_sanity_check_are_no_runs() -> None:
        heard: list[str] = []
        adapter = hosts.Lightning(LambdaCallback(on_test_end=lambda logs: heard.append(f"{float(logs['loss']):.3f}")))
        trainer = fit(adapter, max_epochs=1, num_sanity_val_steps=2)
        assert len(heard) == 1
        trainer.validate(Module(), loader(), verbose=False)
        assert len(heard) == 1

    def test_nothing_is_read_in_a_batch() -> None:
        from torch.utils._python_dispatch import TorchDispatchMode

        class Reads(TorchDispatchMode):
            count = 0

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                self.count += func is torch.ops.aten._local_scalar_dense.default
                return func(*args, **(kwargs or {}))

        module, adapter = Module(), hosts.Lightning(Preemption())
        trainer = fit(adapter, module=module, max_epochs=1)
        adapter.on_train_start(trainer, module)
        adapter.on_train_epoch_start(trainer, module)
        with Reads() as reads:
            adapter.on_train_batch_start(trainer, module, (X, Y), 0)
            adapter.on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, (X, Y), 0)
        adapter.on_exception(trainer, module, KeyboardInterrupt())
        assert reads.count == 0

    def test_its_file_is_that_of_the_module(tmp_path: Path) -> None:
        fit(hosts.Lightning(ModelCheckpoint(tmp_path / "m.safetensors", save_weights_only=True, asynchronous=True)))
        from safetensors.torch import load_file

        assert sorted(load_file(tmp_path / "m.safetensors"))[0] == "net.0.bias"

    PROCESSES = """
import json, sys
from pathlib import Path
import lightning, torch
from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, ReduceLROnPlateau

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    x = torch.linspace(-1, 1, 64).reshape(32, 2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
    adapter = hosts.Lightning(
        EarlyStopping(patience=1, min_delta=0.01),
        ReduceLROnPlateau("loss", patience=0, min_delta=0.1),
        CSVLogger(folder / "log.csv"),
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=40, accelerator="cpu", devices=2, strategy="ddp", callbacks=[adapter], **quiet)
    trainer.fit(Module(), loader, loader)
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(adapter.history.history))
"""

    @pytest.mark.slow
    def test_two_processes_decide_the_same_and_write_one_file(tmp_path: Path) -> None:
        script = tmp_path / "train.py"
        script.write_text(PROCESSES, encoding="utf-8")
        done = run_bounded([sys.executable, str(script), str(tmp_path)], 200.0)
        assert done.returncode == 0, done.stderr
        one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
        assert one == two
        assert 2 < len(one["loss"]) < 40
        assert len((tmp_path / "log.csv").read_text().splitlines()) == len(one["loss"]) + 1
