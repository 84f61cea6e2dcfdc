"""The journal of a state of format 2, as today's: its entries had their words, and name a phrase since format 3."""

from __future__ import annotations

import json
from typing import Any


def upgraded_journal(state: dict[str, Any]) -> dict[str, Any]:
    """Return a journal's state of format 2 in today's form.

    The account of a run reads an entry's data and the reason that its phrase cites. In format 2 the reason, the watched
    value and the optimizer's name were in the words alone, so they are taken from there. The words stay as they were.

    Args:
        state: What `Journal.state_dict` returned in format 2.

    Returns:
        What `Journal.load_state_dict` takes.

    Example:
        >>> entry = {"time": 0.0, "epoch": 1, "batch": None, "callback": "LearningRateScheduler"}
        >>> entry |= {"text": "learning rate 0.5 to 0.25: by the schedule", "kind": "learning_rate", "data": None}
        >>> upgraded_journal({"dropped": 0, "entries": [entry]})["entries"][0]["data"]["cited"]
        '0.5 to 0.25: by the schedule'
    """
    kept = [json.loads(entry) if isinstance(entry, str) else entry for entry in state["entries"]]
    return {**state, "entries": [_upgraded(entry) for entry in kept]}


def _upgraded(entry: dict[str, Any]) -> dict[str, Any]:
    text, kind, data = entry["text"], entry["kind"], dict(entry["data"] or {})
    if kind == "stop":
        cited = (
            f"{data['not_finite']} was {data.get('value')}" if "not_finite" in data else text.removeprefix("stopped: ")
        )
    elif kind == "learning_rate":
        cited = text.removeprefix("learning rate ")
        data["optimizer"] = "" if cited != text else text.partition(" learning rate ")[0]
    elif kind in ("best", "save") and data.get("path") is not None:
        cited = text.removeprefix(f"saved {data['path']}").removeprefix(": ")
        if kind == "best":
            data["monitor"] = _monitor(cited, data.get("score"))
    elif kind == "restore" and data.get("epoch") is not None:
        cited = text.removeprefix(f"put back the weights of epoch {data['epoch'] + 1}, ")
        if not cited.startswith("where "):
            return entry
    else:
        return entry
    others = {name: value for name, value in entry.items() if name != "text"}
    return {**others, "what": "earlier_version", "data": {**data, "line": text, "cited": cited}}


def _monitor(reason: str, score: Any) -> str:
    # A name may have spaces; the number comes after it.
    name, found, _ = reason.partition(f" {score:g} " if isinstance(score, float) else " ")
    return name if found else reason.partition(" ")[0]
