"""When one process fails, is killed or hangs, the others end soon, say why, and close what they have begun."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from distribution import failing
from processes import ROOT, free_port, run_bounded

from oncue.core.preempted import Preempted, is_agreed
from oncue.distribution import failures, termination
from oncue.distribution.termination import Terminated, ended_by_sigterm

NAMES = {
    "raise": "ValueError: this is the fault",
    "interrupt": "KeyboardInterrupt",
    "term": "KeyboardInterrupt: it got SIGTERM",
    "full": "OSError: [Errno 28] No space",
}
SHORT = ["kill meeting 1", "raise batch 1", "term batch 1", "kill data 0", "sleep epoch 1", "stop step 0"]
OUTSIDE = ("meeting", "start", "between")
"""Places where no run is going on, so that nothing is to be closed."""
LONG = {
    size: [
        f"{fault} {place} {who}"
        for who in range(size)
        for fault in failing.FAULTS
        for place in failing.PLACES
        # Whoever reads data isn't taken to hang; in the meeting it is a thread that would sleep.
        if fault != "sleep" or place not in ("data", "validation_data", "meeting")
        # Outside of runs SIGTERM does what it always does, as `kill`.
        if fault != "term" or place not in OUTSIDE
        # The main process saves for all.
        if place != "save" or who == 0
        if size == 2 or (fault in ("raise", "kill") and who == 1)
    ]
    for size in (2, 3)
}


def campaign(folder: Path, size: int, cases: list[str], *options: str) -> list[dict[str, Any]]:
    """Run cases, and return what came of each."""
    command = [sys.executable, failing.__file__, *options, str(folder), str(size), *cases]
    # A group of cases has ten minutes, in which it is started again.
    found = run_bounded(command, 1300.0 * len(cases))
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def check(result: dict[str, Any]) -> None:
    """Make sure that the processes that didn't fail know why they ended, in time, and have closed everything."""
    fault, place, who = result["case"].split()
    for rank, one in enumerate(result["processes"]):
        said = f"{result['case']}, process {rank}: {one}"
        if rank == int(who):
            if fault not in failing.SILENT:
                assert one["error"] == ("Terminated" if fault == "term" else NAMES[fault].partition(":")[0]), said
                assert one["gone"] is not None and one["status"] == 1, said
                assert place in OUTSIDE or one["ends"][-1] == "close", said
            continue
        # Not by a signal, as of C++ that ends beside the interpreter.
        assert one["error"] == "PeerFailed" and one["status"] == 1, said
        assert f"process {who}" in one["text"], said
        if fault in NAMES:
            assert NAMES[fault] in one["text"], said
        # Much less when the machine isn't busy.
        limit = failing.TIMEOUT + 15.0 if fault in failing.HANGS else 15.0
        # There whoever was killed is missed as one that hangs, and the thread that waits for it is waited for.
        limit = failing.TIMEOUT + 25.0 if place == "meeting" else limit
        assert one["seconds"] < limit and one["gone"] is not None and one["gone"] < limit + 30.0, said
        if place not in OUTSIDE and place != "predict":
            assert one["ends"] == ["on_exception", "close"], said
    folder = Path(result["folder"])
    if (folder / "log.csv").exists():
        with open(folder / "log.csv") as file:
            rows = list(csv.reader(file))
        assert all(len(row) == len(rows[0]) for row in rows), rows
    assert not [path for path in folder.glob("*.weights.h5*") if path.name != "kept.weights.h5"]


@pytest.mark.slow
def test_the_others_end_soon_and_say_why(tmp_path: Path) -> None:
    for result in campaign(tmp_path, 2, SHORT):
        check(result)


@pytest.mark.processes
@pytest.mark.parametrize("size", LONG)
def test_whatever_fails_anywhere_ends_all(size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One that nobody disturbs comes first: what the others come to in the end, when they are started again.
    # A step of the model's own weighs gradients in another order, so that the last bit is another.
    whole, own, *results = campaign(tmp_path, size, ["none none 0", f"none step {size}", *LONG[size]], "--resumed")
    wrong = []
    for result in results:
        try:
            check(result)
            like = own if result["case"].split()[1] in failing.OWN else whole
            expected = [one["came_to"] for one in like["processes"]]
            assert result["resumed"] == expected, f"{result['case']} came to {result['resumed']}, not to {expected}"
        except AssertionError as error:
            wrong.append(str(error))
    with capsys.disabled():
        print(f"\n{len(results)} failures of one process of {size}, each run resumed: {len(wrong)} differences")
    assert not wrong, f"{len(wrong)} of {len(LONG[size])}: " + "\n".join(wrong)


def test_what_all_make_together_ends_when_one_of_them_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_SILENT", 2.0)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    known = failures.Failures(store, 0, 2, timeout=60.0)
    known.watch()
    ends = threading.Event()
    try:
        assert known.make(lambda: 3, "the start") == 3
        with pytest.raises(ValueError, match="no such device"):
            known.make(fails, "the start")
        with pytest.raises(failures.PeerFailed, match="process 1: not heard of for 2 s"):
            known.make(ends.wait, "the start")
    finally:
        ends.set()
        known.stop()


def fails() -> None:
    raise ValueError("no such device")


SURVIVOR = """
import os, signal, sys
import numpy as np
import oncue as keras

class Told(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.ranks.main and batch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self):
        open(os.path.join(sys.argv[1], f"closed{self.ranks.rank}"), "w").close()

model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((64, 4)), np.ones((64, 1)), batch_size=8, epochs=2, verbose=0, callbacks=[Told()])
"""


@pytest.mark.processes
def test_callbacks_are_closed_where_torchrun_ends_the_processes_that_are_left(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SURVIVOR)
    port = str(free_port())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    found = run_bounded([*torchrun, str(script), str(tmp_path)])
    assert found.returncode != 0
    assert (tmp_path / "closed1").exists() and not (tmp_path / "closed0").exists(), found.stderr


RESTARTED = """
import json, os, signal, sys
import numpy as np
import oncue as keras

folder, kills = sys.argv[1], sys.argv[2] == "kills"
attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

class Dies(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        # Another process at each attempt, amid an epoch.
        step = int(self.model.optimizer.iterations)
        if kills and (attempt, self.ranks.rank, step) in ((0, 1, 6), (1, 0, 11)):
            os.kill(os.getpid(), signal.SIGKILL)

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(64, 4))
callbacks = [keras.callbacks.BackupAndRestore(os.path.join(folder, "backup"), every="2 steps"), Dies()]
history = model.fit(x, x.sum(1), batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
found = [attempt, history.history, [weight.tolist() for weight in model.get_weights()]]
with open(os.path.join(folder, f"found{os.environ['RANK']}.json"), "w") as file:
    json.dump(found, file)
"""


@pytest.mark.processes
def test_torchrun_starts_killed_processes_again_which_go_on_to_the_bit(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(RESTARTED)
    found = {}
    for name in ("lets", "kills"):
        folder = tmp_path / name
        folder.mkdir()
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
        done = run_bounded([*torchrun, "--master-port", str(free_port()), str(script), str(folder), name], 240.0)
        assert done.returncode == 0, done.stderr
        found[name] = [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(2)]
    assert [one[0] for one in found["kills"]] == [2, 2]
    assert [one[1:] for one in found["kills"]] == [one[1:] for one in found["lets"]]


def test_a_handler_of_the_user_s_gets_sigterm() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with ended_by_sigterm(lambda: False):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_sigterm_leaves_alone_what_is_tidied_up_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "_end_late", lambda: None)
    with ended_by_sigterm(lambda: True):
        signal.raise_signal(signal.SIGTERM)
    # One who says so by the error that is on its way, as where all have agreed on the end.
    with pytest.raises(Preempted), ended_by_sigterm(lambda: is_agreed(sys.exception())):
        try:
            raise Preempted("SIGTERM", saved=True)
        finally:
            signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated) as ended, ended_by_sigterm(lambda: False):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


BATCH_SCRIPT = re.search(r"^srun .*$", (ROOT / "docs" / "many_processes.md").read_text(), re.MULTILINE)
SRUN = """
import os, signal, subprocess, sys, time

tasks = []
for rank in range(2):
    places = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NTASKS": "2"}
    tasks.append(subprocess.Popen(sys.argv[1:], env={**os.environ, **places, "SLURM_STEP_NODELIST": "localhost"}))
while not os.path.exists("trains") and not any(task.poll() for task in tasks):
    time.sleep(0.05)
for task in tasks:
    task.send_signal(signal.SIGUSR1)
sys.exit(max(task.wait() for task in tasks))
"""
TRAIN = """
import numpy as np
import oncue as keras
from oncue.callbacks import BackupAndRestore, LambdaCallback, Preemption

keras.distribution.initialize()
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
# So many steps would be compiled, which takes longer than all else.
model.compile("sgd", "mse", jit_compile=False)
begun = LambdaCallback(on_train_batch_end=lambda batch, logs: open("trains", "w").close())
callbacks = [begun, BackupAndRestore("backup"), Preemption(signals="SIGUSR1")]
model.fit(np.ones((64, 4)), np.ones((64, 1)), batch_size=8, epochs=10**6, verbose=0, callbacks=callbacks)
"""


def test_a_job_that_slurm_ends_early_is_queued_again(tmp_path: Path) -> None:
    assert BATCH_SCRIPT is not None
    (tmp_path / "train.py").write_text(TRAIN)
    for name, body in {
        "srun": f"#!{sys.executable}\n{SRUN}",
        "scontrol": '#!/bin/sh\necho "$@" > queued\n',
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }.items():
        (tmp_path / name).write_text(body)
        (tmp_path / name).chmod(0o755)
    job = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "MASTER_PORT": str(free_port())}
    found = run_bounded(["sh", "-c", BATCH_SCRIPT[0]], cwd=tmp_path, **job)
    assert (tmp_path / "queued").exists(), found.stderr
    assert (tmp_path / "queued").read_text() == "requeue 77\n"
    assert list((tmp_path / "backup").iterdir())
