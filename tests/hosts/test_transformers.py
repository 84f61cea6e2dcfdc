"""`hosts.Transformers`: what the matrix doesn't show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hosts_matrix import Plan, Rows, WithLoss
from processes import run_bounded

from helpers import cpu_only
from oncue import hosts
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TerminateOnNaN,
)

pytestmark = [
    cpu_only("another library's loop, on the CPU"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

if find_spec("transformers") is not None:
    import transformers

    def train(*adapters: Any, folder: Path, resume: Any = None, data: Any = None, **options: Any) -> Any:
        arguments = {
            "num_train_epochs": 4,
            "per_device_train_batch_size": 8,
            "learning_rate": 0.1,
            "optim": "sgd",
            "eval_strategy": "epoch",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            **options,
        }
        trainer = transformers.Trainer(
            model=WithLoss(Plan(lambda folder: [], folder)),
            args=transformers.TrainingArguments(output_dir=str(folder), **arguments),
            train_dataset=Rows(),
            eval_dataset=Rows() if data is None else data,
            callbacks=list(adapters),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    def test_a_rate_that_is_lowered_stays_lowered_under_the_scheduler(tmp_path: Path) -> None:
        adapter = hosts.Transformers(ReduceLROnPlateau(patience=0, factor=0.5, min_delta=10))
        train(adapter, folder=tmp_path)
        # The default scheduler falls to zero in a line, with three updates in an epoch.
        expected = [0.1 * (1 - step / 12) * share for step, share in ((2, 1), (5, 1), (8, 0.5), (11, 0.25))]
        assert adapter.history.history["learning_rate"] == pytest.approx(expected)

    @pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
    def test_a_scheduler_that_decides_itself(kind: str, tmp_path: Path) -> None:
        if kind not in [one.value for one in transformers.SchedulerType]:
            kind = "reduce_lr_on_plateau"
        adapter = hosts.Transformers(LearningRateScheduler(lambda epoch: 0.1))
        with pytest.raises(
            ValueError, match="LearningRateScheduler sets the learning rate, and so does the loop's own"
        ):
            train(adapter, folder=tmp_path, lr_scheduler_type=kind, metric_for_best_model="loss", save_strategy="epoch")

    @pytest.mark.parametrize("logging", [{}, {"logging_strategy": "epoch"}, {"logging_steps": 1}, {"logging_steps": 2}])
    @pytest.mark.parametrize("evaluation", ["no", "epoch", "steps"])
    def test_every_epoch_has_its_values_however_it_logs(logging: Any, evaluation: str, tmp_path: Path) -> None:
        adapter = hosts.Transformers(EarlyStopping("loss", patience=1, min_delta=0.2))
        trainer = train(
            adapter, folder=tmp_path, eval_strategy=evaluation, eval_steps=3, **logging, num_train_epochs=9, seed=0
        )
        reference = hosts.Transformers(LambdaCallback(on_train_begin=lambda logs: None))
        train(reference, folder=tmp_path, logging_strategy="epoch", num_train_epochs=9, seed=0)
        found, expected = adapter.history.history, reference.history.history
        assert 2 < len(found["loss"]) < 9
        assert found["loss"] == pytest.approx(expected["loss"][: len(found["loss"])], rel=1e-4)
        assert ("val_loss" in found) == (evaluation != "no")
        # It stops at once, without another update.
        assert trainer.state.global_step == 3 * len(found["loss"])

    def test_a_stop_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
        seen: list[int] = []

        def stop(batch: int, logs: Any) -> None:
            seen.append(batch)
            if batch == 1:
                listener.model.stop_training = True

        listener = LambdaCallback(on_train_batch_end=stop)
        adapter = hosts.Transformers(listener)
        train(adapter, folder=tmp_path)
        assert seen == [0, 1]
        assert adapter.history.epoch == [0]

    def test_it_continues_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
        steps = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "num_train_epochs": 3}

        def callbacks() -> list[Any]:
            return [EarlyStopping(patience=9, restore_best_weights=True)]

        whole = hosts.Transformers(*callbacks())
        train(whole, folder=tmp_path, **steps)
        again = hosts.Transformers(*callbacks())
        trainer = train(again, folder=tmp_path, resume=str(tmp_path / "checkpoint-4"), **steps)
        assert again.history.epoch == whole.history.epoch
        # What the Trainer says itself, of the fourth update in the first run: not every version goes on with the same data.
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert again.history.history["loss"] == pytest.approx([sum(losses[at : at + 3]) / 3 for at in (0, 3, 6)])

    def test_weights_that_are_gone_are_told_before_the_first_step(tmp_path: Path) -> None:
        steps = {"save_strategy": "epoch", "num_train_epochs": 2}
        train(hosts.Transformers(EarlyStopping(restore_best_weights=True, patience=5)), folder=tmp_path, **steps)
        (tmp_path / "checkpoint-3" / "oncue_callbacks.safetensors").unlink()
        with pytest.raises(
            ValueError, match="The checkpoint has a state of oncue's callbacks in .* which can't be used"
        ):
            train(
                hosts.Transformers(EarlyStopping(restore_best_weights=True, patience=5)),
                folder=tmp_path,
                resume=str(tmp_path / "checkpoint-3"),
                **steps,
            )

    def test_a_trainer_that_makes_callbacks_anew_is_told(tmp_path: Path) -> None:
        adapter = hosts.Transformers(EarlyStopping())
        with pytest.raises(ValueError, match="leave out `restore_callback_states_from_checkpoint=True`"):
            train(adapter, folder=tmp_path, restore_callback_states_from_checkpoint=True)

    def test_an_error_of_ours_closes_at_once(tmp_path: Path) -> None:
        heard: list[str] = []

        class Fail(Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                raise RuntimeError("ours")

            def close(self) -> None:
                heard.append("close")

        with pytest.raises(RuntimeError, match="ours"):
            train(hosts.Transformers(Fail()), folder=tmp_path)
        assert heard == ["close"]

    def test_a_second_data_set_of_evaluation_is_told(tmp_path: Path) -> None:
        adapter = hosts.Transformers(EarlyStopping("val_one_loss", mode="min"))
        with pytest.warns(UserWarning, match="evaluates another data set: its values .two_loss. are left out"):
            train(adapter, folder=tmp_path, data={"one": Rows(), "two": Rows()}, num_train_epochs=1)

    @pytest.mark.parametrize(
        ("callback", "text"),
        [
            (lambda: ModelCheckpoint("a.keras"), "ModelCheckpoint needs a file of the whole model.*save_strategy"),
            (lambda: BackupAndRestore("backup"), "resume_from_checkpoint=True"),
            (TerminateOnNaN, "logging_nan_inf_filter=False"),
            (SwapEMAWeights, "AveragedModel"),
        ],
    )
    def test_what_transformers_lacks_is_refused_when_it_is_made(callback: Callable[[], Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            hosts.Transformers(callback())

    PROCESSES = """
import json, sys
from pathlib import Path
import torch, transformers
from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, LambdaCallback, ModelCheckpoint, ReduceLROnPlateau

folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(2, 1)

    def forward(self, x, labels):
        outputs = self.net(x)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}

if __name__ == "__main__":
    rows = [{"x": x, "labels": x.sum(0, keepdim=True)} for x in torch.linspace(-1, 1, 64).reshape(32, 2)]
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"), num_train_epochs=40, per_device_train_batch_size=4, learning_rate=0.05, optim="sgd",
        lr_scheduler_type="constant", eval_strategy="epoch", save_strategy="epoch", report_to=[], disable_tqdm=True,
        use_cpu=True,
    )
    rank = arguments.process_index
    # One process alone wants to stop; all of them do, when the epoch ends.
    local = LambdaCallback(on_train_batch_end=lambda batch, logs: rank == 1 and batch == 1 and stop())
    adapter = hosts.Transformers(
        EarlyStopping(patience=1, min_delta=0.01, restore_best_weights=True),
        ReduceLROnPlateau("loss", patience=0, min_delta=0.1),
        CSVLogger(folder / "log.csv", append=True),
        ModelCheckpoint(folder / "best.safetensors", save_best_only=True, save_weights_only=True),
        *([] if resume else [local]),
    )
    def stop():
        local.model.stop_training = True
    trainer = transformers.Trainer(
        model=Net(), args=arguments, train_dataset=rows, eval_dataset=rows, callbacks=[adapter]
    )
    with adapter:
        trainer.train(resume_from_checkpoint=resume or None)
    (folder / f"{rank}.json").write_text(json.dumps([adapter.history.history, trainer.state.global_step]))
"""

    @pytest.mark.slow
    def test_two_processes_decide_the_same_write_one_file_and_go_on(tmp_path: Path) -> None:
        script = tmp_path / "train.py"
        script.write_text(PROCESSES, encoding="utf-8")
        for turn in ("first", "resume"):
            command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29572", str(script)]
            done = run_bounded([sys.executable, *command, str(tmp_path), turn], 200.0)
            assert done.returncode == 0, done.stderr
            (one, steps), (two, others) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
            assert one == two
            assert steps == others == 4 * len(one["loss"])
            assert len(one["loss"]) == 1 if turn == "first" else 2 < len(one["loss"]) < 40
            assert len((tmp_path / "log.csv").read_text().splitlines()) == len(one["loss"]) + 1

    def test_its_callbacks_in_our_lists() -> None:
        for callback, text in [
            (
                transformers.EarlyStoppingCallback(),
                r"of transformers, EarlyStoppingCallback.*use `oncue\.callbacks\.EarlyStopping`",
            ),
            (hosts.Transformers(), "give the callbacks that it carries"),
        ]:
            with pytest.raises(TypeError, match=text):
                CallbackList([callback])
