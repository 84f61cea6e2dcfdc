"""Phrases: what oncue's callbacks decide, in words that are made from the data of the journal's entries.

Nothing depends on the words: another wording, or another language, changes what is printed and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from oncue.core.numbers import bytes_in_words

Data = Mapping[str, Any]
Words = Callable[[Data], str]


@dataclass(frozen=True)
class Phrase:
    """The words for one kind of decision, each from the entry's data.

    Args:
        line: What the journal shows after the callback's name.
        cited: What `explain()` adds to a sentence of its own, such as "It was stopped by EarlyStopping after epoch 4";
            it may be empty.
    """

    line: Words
    cited: Words


def line(what: str, data: Data | None) -> str:
    """Return what the journal shows of a decision.

    Args:
        what: The phrase's name.
        data: The entry's data.

    Example:
        >>> line("file", {"path": "best.keras"})
        'saved best.keras'
    """
    return _said(what, data, lambda phrase: phrase.line)


def cited(what: str, data: Data | None) -> str:
    """Return what `explain()` adds to a sentence of its own.

    Args:
        what: The phrase's name.
        data: The entry's data.

    Example:
        >>> cited("weights_restored", {"epoch": 1, "monitor": "loss", "value": 0.5})
        'where loss was 0.5'
    """
    return _said(what, data, lambda phrase: phrase.cited)


def _said(what: str, data: Data | None, words: Callable[[Phrase], Words]) -> str:
    try:
        return words(PHRASES[what])(data or {})
    except KeyError:
        # An entry of another version of oncue, for which there are no words here, must not keep its run from resuming.
        return f"{what} {dict(data or {})}"


def _after(start: str, reason: Words) -> Phrase:
    return Phrase(lambda data: f"{start}: {reason(data)}", reason)


def _alone(words: Words) -> Phrase:
    return Phrase(words, words)


# Stops -----------------------------------------------------------------------------------------------------------------


def _no_improvement(data: Data) -> str:
    monitor, value, best, wait = data["monitor"], data["value"], data["best"], data["wait"]
    if best is None:
        return f"{monitor} was never finite in {wait} epochs, now {value:g}"
    unmet = "" if data["baseline"] is None else f", and to beat is {data['baseline']:g}"
    return (
        f"{monitor} {value:g} is no improvement on {best:g}{_by_more_than(data)}, {wait} epochs without "
        f"(patience {data['patience']}){unmet}"
    )


def _not_finite(data: Data) -> str:
    return f"stopped: {data['not_finite']} is {data['value']} after {_moment(data)}"


def _time_is_over(data: Data) -> str:
    return f"{data['seconds']:.0f} of {data['limit']:.0f} seconds are over; {_state_saved(data)}"


def _signal(data: Data) -> str:
    return f"ended the run after {data['signal']}: {_state_saved(data)}"


# Learning rates --------------------------------------------------------------------------------------------------------


def _rate(why: Words) -> Phrase:
    def change(data: Data) -> str:
        return f"{data['before']:g} to {data['after']:g}: {why(data)}"

    def with_name(data: Data) -> str:
        return (
            f"{data['optimizer']} learning rate {change(data)}"
            if data["optimizer"]
            else f"learning rate {change(data)}"
        )

    return Phrase(with_name, lambda data: with_name(data) if data["optimizer"] else change(data))


def _rate_found(data: Data) -> str:
    test = f"a test of {data['steps']} rates suggests {data['suggestion']:g}"
    return f"learning rate {data['before']:g} to {data['after']:g}: {test}" if data["after"] != data["before"] else test


def _batch_size_found(data: Data) -> str:
    return (
        f"a test suggests batches of {data['suggestion']}, {data['samples_per_second']:,.0f} samples in a second; "
        f"{data['largest']} is the largest size that was tried and fits"
    )


def _plateau(data: Data) -> str:
    monitor, value, best, wait = data["monitor"], data["value"], data["best"], data["wait"]
    if best is None:
        return f"{monitor} was never finite, now {value:g}"
    verb = "risen above" if data["direction"] == "up" else "fallen below"
    epochs = f"{wait} epoch" + ("" if wait == 1 else "s")
    return f"{monitor} {value:g} has not {verb} {best:g}{_by_more_than(data)} for {epochs}"


def _schedule(data: Data) -> str:
    if data["last_set"] is None:
        return "by the schedule"
    return (
        f"by the schedule, which overwrites {data['before']:g}: another had set that since the schedule set "
        f"{data['last_set']:g}"
    )


# Weights and files -----------------------------------------------------------------------------------------------------


def _best_weights(data: Data) -> str:
    than = "" if data["before"] is None else f" is better than {data['before']:g}"
    return f"{data['monitor']} {data['value']:g}{than}"


def _weights_restored(data: Data) -> str:
    return f"where {data['monitor']} was {data['value']:g}"


def _threshold_reached(data: Data) -> str:
    times = "" if data["times"] == 1 else f" {data['times']} times in a row"
    return f"{data['monitor']} {data['value']:g} has reached {data['threshold']:g}{times}"


def _named(data: Data) -> str:
    return ", ".join(data["layers"])


def _is(data: Data) -> str:
    return "is" if len(data["layers"]) == 1 and "*" not in data["layers"][0] else "are"


def _numbers(data: Data) -> str:
    return f"{data['numbers']:,} numbers in {data['weights']} weight" + ("" if data["weights"] == 1 else "s")


def _averaged(data: Data) -> str:
    times = f"{data['count']} time" + ("" if data["count"] == 1 else "s")
    if data["decay"] is None:
        return f"the average of the weights, which were taken {times}, after every {data['every']}"
    return f"the moving average of the weights, which was updated {times} with a decay of {data['decay']:g}"


def _best_file(data: Data) -> str:
    than = "is the first" if data["before"] is None else f"is better than {data['before']:g}"
    return f"{data['monitor']} {data['score']:g} {than}"


def _best_resumed(data: Data) -> str:
    return f"continues from {data['monitor']} {data['score']:g}, which {data['path']} was saved with"


# The run ---------------------------------------------------------------------------------------------------------------


def _rolled_back(data: Data) -> str:
    text = (
        f"went back to the end of epoch {data['epochs']}, because {data['not_finite']} was {data['value']} after "
        f"{_moment(data)}"
    )
    if data["factor"] == 1:
        return text
    return f"{text}; learning rate {data['before']:g} -> {data['learning_rate']:g}"


def _resumed(data: Data) -> str:
    text = "has nothing to do: the run had been stopped" if data["stopped"] else "resumed from a backup"
    again = f"; the epoch's first {data['redone']} batches are done again" if data["redone"] else ""
    changed = "".join(f"; {how}" for how in data.get("changed", ()))
    return text + again + changed


def _out_of_memory(data: Data) -> str:
    place = {"train": "training", "test": "evaluation", "predict": "prediction"}[data["kind"]]
    step = "" if data["step"] is None else f" in step {data['step']}"
    step = f"{step} of the {place}" if not data["before"] else f" before the {place}"
    size = data["batch_size"]
    rows = "" if size is None else f", with batches of {size}"
    parts = ", ".join(f"{name} {bytes_in_words(number)}" for name, number in data["parts"].items())
    less = (
        f"a smaller `batch_size` (such as {max(size // 2, 1)})" if size is not None and size > 1 else "smaller batches"
    )
    half = ""
    if data["half_updated"]:
        half = " It failed after the gradients were there: the update may be half done, so go on from saved weights."
    return (
        f"memory of {data['device']} ran out{step}{rows}: {parts}. Try {less}, with "
        "`gradient_accumulation_steps` to make up for it, or a policy of 16 bits. What the step took is free again."
        f"{half}"
    )


def _two_set_the_rate(data: Data) -> str:
    return (
        f"{' and '.join(data['callbacks'])} both set the learning rate; whichever comes later overwrites the other. The "
        "journal says who set it when."
    )


def _changed_in_hook(data: Data) -> str:
    step = {"train": "training", "test": "evaluation", "predict": "prediction"}[data["steps"]]
    return f"a hook changed {', '.join(data['names'])}, which counts from this step of the {step} on"


def _profiled(data: Data) -> str:
    costs = [f"{one['name']} {one['share']:.0%}" for one in data.get("operations", ())[:3]]
    most = f"; most of the time took {', '.join(costs)}" if costs else ""
    memory = f", {data['memory']}" if data.get("memory") else ""
    return f"profiled batches {data['first']} to {data['last']}: {data['path']}{memory}{most}"


# Parts -----------------------------------------------------------------------------------------------------------------


def _by_more_than(data: Data) -> str:
    return f" by more than {data['min_delta']:g}" if data["min_delta"] else ""


def _state_saved(data: Data) -> str:
    return f"the state was {'saved' if data['saved'] else 'not saved'}"


def _amid(data: Data) -> str:
    return f", batch {data['batch'] + 1}" if "batch" in data else ""


def _moment(data: Data) -> str:
    # Keras's messages count batches from 0 and epochs from 1.
    return f"batch {data['index']}" if data["unit"] == "batch" else f"epoch {data['index'] + 1}"


PHRASES: dict[str, Phrase] = {
    "no_improvement": _after("stopped", _no_improvement),
    "not_finite": Phrase(_not_finite, lambda data: f"{data['not_finite']} was {data['value']}"),
    "time_is_over": _after("stopped", _time_is_over),
    "signal": _alone(_signal),
    "plateau": _rate(_plateau),
    "schedule": _rate(_schedule),
    "best_weights": _after("kept the weights", _best_weights),
    "weights_restored": Phrase(
        lambda data: f"put back the weights of epoch {data['epoch'] + 1}{_amid(data)}, {_weights_restored(data)}",
        lambda data: _weights_restored(data) + (f" after{_amid(data)[1:]}" if "batch" in data else ""),
    ),
    "told_to_stop": _after("stopped", lambda data: f"{data['user']} said so"),
    "told_to_save": _alone(lambda data: f"{data['user']} said save: {_state_saved(data)}"),
    "told_pause": _alone(lambda data: f"waits: {data['user']} said pause"),
    "told_go": _alone(lambda data: f"goes on: {data['user']} said go"),
    "told_nonsense": _alone(lambda data: f"{data['file']} is no command, and was taken away"),
    "told_in_vain": _alone(lambda data: f"{data['user']} said rate {data['value']}, but a schedule sets the rate"),
    "told_rate": _rate(lambda data: f"{data['user']} said so"),
    "rate_found": Phrase(_rate_found, _rate_found),
    "batch_size_found": _alone(_batch_size_found),
    "mixes_no_more": _alone(
        lambda data: (
            f"batches are left as they are from here on, after {data['epochs']} epoch{'s' * (data['epochs'] != 1)}"
        )
    ),
    "averaged": Phrase(lambda data: f"left in the model {_averaged(data)}", _averaged),
    "pruned": _after(
        "stopped",
        lambda data: (
            f"Optuna prunes the trial, which told {data['monitor']} {data['value']:g} as value {data['count']}"
        ),
    ),
    "ended_by_tune": _after(
        "stopped", lambda data: f"Ray Tune ended the trial when it heard of epoch {data['epochs']}"
    ),
    "threshold_reached": _after("stopped", _threshold_reached),
    "frozen": _alone(lambda data: f"froze {_named(data)}: {_numbers(data)} stand still"),
    "trained_again": _alone(lambda data: f"{_named(data)} {_is(data)} trained again: {_numbers(data)}"),
    "gradients_not_finite": _alone(lambda data: f"the norm of the gradients was {data['value']}"),
    "best_file": Phrase(lambda data: f"saved {data['path']}: {_best_file(data)}", _best_file),
    "file": Phrase(lambda data: f"saved {data['path']}", lambda data: ""),
    "no_file": _alone(lambda data: "saved nothing: a value is not finite"),
    "no_backup": _alone(lambda data: "saved no backup: a value is not finite"),
    "backup_skipped": _alone(lambda data: "saved no backup: the one before is still being written"),
    "file_skipped": _alone(lambda data: f"didn't save {data['path']}: the file before is still being written"),
    "best_resumed": _alone(_best_resumed),
    "rolled_back": _alone(_rolled_back),
    "resumed": _alone(_resumed),
    "forked": _alone(lambda data: f"forked from {data['run']} after epoch {data['epochs']}"),
    "fork_differs": _alone(lambda data: f"other settings than there: {'; '.join(data['settings'])}"),
    "two_set_the_rate": _alone(_two_set_the_rate),
    "changed_in_hook": _alone(_changed_in_hook),
    "no_graph": _alone(lambda data: f"no graph is written: {data['model']} is no torch module and has no `to_json`"),
    "profiled": _alone(_profiled),
    "not_profiled": _alone(
        lambda data: f"profiled nothing: the run had {data['batches']} batches, and {data['first']} was to be the first"
    ),
    # An entry of a state of format 2 has its words, and no data to make them from.
    "earlier_version": Phrase(lambda data: str(data["line"]), lambda data: str(data["cited"])),
    "out_of_memory": _alone(_out_of_memory),
    "no_utilization": _alone(
        lambda data: f"doesn't tell all of the device, because NVML can't be asked ({data['error']})"
    ),
    "gave_up_sending": _alone(
        lambda data: f"gave up sending to {data['root']} after {data['failures']} failures in a row: {data['error']}"
    ),
}
"""The words for each decision of oncue's own callbacks, by name."""
