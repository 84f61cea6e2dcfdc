"""Logs: a real dict whose values are fetched together, on first read."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from oncue.core.logs import Logs, as_logs


class Device:
    """A source that counts how often it is read."""

    def __init__(self, **values: float) -> None:
        self.names: Sequence[str] = list(values)
        self.values = list(values.values())
        self.reads = 0
        self.snapshots = 0

    def read(self) -> list[float]:
        self.reads += 1
        return list(self.values)

    def snapshot(self) -> Device:
        self.snapshots += 1
        copied = Device(**dict(zip(self.names, self.values, strict=True)))
        return copied


@pytest.fixture
def device() -> Device:
    return Device(accuracy=0.75, loss=0.5)


@pytest.fixture
def logs(device: Device) -> Logs:
    return Logs(source=device)


FREE: dict[str, tuple[Callable[[Logs], Any], Any]] = {
    "len": (len, 2),
    "in": (lambda logs: "loss" in logs, True),
    "not in": (lambda logs: "val_loss" in logs, False),
    "keys": (lambda logs: list(logs.keys()), ["accuracy", "loss"]),
    "iteration": (list, ["accuracy", "loss"]),
    "sorted": (sorted, ["accuracy", "loss"]),
    "bool": (bool, True),
    "or": (lambda logs: (logs or {}) is logs, True),
    "isinstance": (lambda logs: isinstance(logs, dict), True),
    "keys as a set": (lambda logs: logs.keys() & {"loss", "x"}, {"loss"}),
    "get of an unknown name": (lambda logs: logs.get("val_loss", 7), 7),
}


@pytest.mark.parametrize("case", FREE)
def test_operations_without_values_fetch_nothing(logs: Logs, device: Device, case: str) -> None:
    look, expected = FREE[case]
    assert look(logs) == expected
    assert device.reads == 0
    assert not logs.fetched


VALUES = {"accuracy": 0.75, "loss": 0.5}


def called(**keywords: Any) -> dict[str, Any]:
    return keywords


def matched(logs: Any) -> Any:
    match logs:
        case {"loss": loss, "accuracy": accuracy}:
            return {"accuracy": accuracy, "loss": loss}
    return None


READS: dict[str, tuple[Callable[[Logs], Any], Any]] = {
    "item": (lambda logs: logs["loss"], 0.5),
    "get": (lambda logs: logs.get("loss"), 0.5),
    "items": (lambda logs: dict(logs.items()), VALUES),
    "values": (lambda logs: list(logs.values()), [0.75, 0.5]),
    "dict": (dict, VALUES),
    "stars": (lambda logs: called(**logs), VALUES),
    "display": (lambda logs: {**logs, "x": 1}, {**VALUES, "x": 1}),
    "update of another": (lambda logs: _updated(logs), VALUES),
    "json": (json.dumps, json.dumps(VALUES)),
    "json indented": (lambda logs: json.loads(json.dumps(logs, indent=1)), VALUES),
    "equal": (lambda logs: logs == VALUES, True),
    "equal from the other side": (lambda logs: VALUES == logs, True),
    "unequal": (lambda logs: logs != {"loss": 1.0}, True),
    "repr": (repr, repr(VALUES)),
    "str": (str, str(VALUES)),
    "format": (lambda logs: "{loss:.1f}".format(**logs), "0.5"),
    "format_map": (lambda logs: "{loss:.1f}".format_map(logs), "0.5"),
    "percent": (lambda logs: "%(loss).1f" % logs, "0.5"),
    "union": (lambda logs: logs | {"x": 1}, {**VALUES, "x": 1}),
    "union from the other side": (lambda logs: {"x": 1} | logs, {"x": 1, **VALUES}),
    "copy method": (lambda logs: logs.copy(), VALUES),
    "copy": (copy.copy, VALUES),
    "deepcopy": (copy.deepcopy, VALUES),
    "pickle": (lambda logs: pickle.loads(pickle.dumps(logs)), VALUES),
    "match": (matched, VALUES),
    "pop": (lambda logs: logs.pop("loss"), 0.5),
    "popitem": (lambda logs: logs.popitem(), ("loss", 0.5)),
    "setdefault": (lambda logs: logs.setdefault("loss", 9), 0.5),
    "comprehension": (lambda logs: {name: logs[name] for name in logs}, VALUES),
    "fromkeys of keys": (lambda logs: [logs[name] for name in logs.keys()], [0.75, 0.5]),
}


def _updated(logs: Logs) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    plain.update(logs)
    return plain


@pytest.mark.parametrize("case", READS)
def test_reading_fetches_once_and_gives_floats(logs: Logs, device: Device, case: str) -> None:
    look, expected = READS[case]
    assert look(logs) == expected
    assert device.reads == 1
    assert dict(logs.items()) or case == "popitem"
    assert device.reads == 1


def test_a_written_value_is_kept(logs: Logs, device: Device) -> None:
    logs["loss"] = 9.0
    logs["mine"] = 1.0
    logs.update(other=2.0)
    assert device.reads == 0
    assert logs == {"accuracy": 0.75, "loss": 9.0, "mine": 1.0, "other": 2.0}


def test_a_removed_value_stays_away(logs: Logs) -> None:
    del logs["loss"]
    assert logs == {"accuracy": 0.75}


def test_cleared_logs_stay_empty(logs: Logs) -> None:
    logs.clear()
    assert logs == {}
    with pytest.raises(KeyError):
        logs["loss"]


def test_in_place_union(logs: Logs, device: Device) -> None:
    logs |= {"mine": 1.0}
    assert device.reads == 0
    assert logs == {**VALUES, "mine": 1.0}


def test_owned_values_outlive_the_next_step(logs: Logs, device: Device) -> None:
    logs.own()
    device.values = [0.0, 0.0]
    assert (device.reads, device.snapshots) == (0, 1)
    assert logs == VALUES


def test_an_unknown_name_is_a_key_error(logs: Logs) -> None:
    with pytest.raises(KeyError, match="nothing"):
        logs["nothing"]


def test_values_given_beside_a_source(device: Device) -> None:
    logs = Logs({"learning_rate": 0.1}, source=device)
    assert logs["learning_rate"] == 0.1
    assert logs["loss"] == 0.5


def test_logs_are_not_hashable(logs: Logs) -> None:
    with pytest.raises(TypeError):
        hash(logs)


def test_as_logs_sorts_flattens_and_makes_floats() -> None:
    import numpy as np

    logs = as_logs({"b": np.float32(0.5), "a": {"y": 1, "x": 2}, "c": "word"})
    assert list(logs.items()) == [("x", 2.0), ("y", 1.0), ("b", 0.5), ("c", "word")]
    assert type(logs["b"]) is float


def test_as_logs_of_nothing_and_of_logs(logs: Logs) -> None:
    assert as_logs(None) == {}
    assert as_logs(logs) is logs
