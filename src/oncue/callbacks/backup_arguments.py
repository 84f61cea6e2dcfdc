"""The arguments of BackupAndRestore, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oncue.core.every import Every
from oncue.core.numbers import whole
from oncue.core.protocols import needs_score

if TYPE_CHECKING:
    from oncue.checkpoints.retention import Rule


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return a choice, when it is one of those that are known.

    Raises:
        ValueError: Otherwise, with the known ones.

    Example:
        >>> check_choice("resume", "epoch", ("exact", "epoch"))
        'epoch'
    """
    if value not in known:
        choices = " or ".join(f"'{choice}'" for choice in known)
        raise ValueError(f"`{name}` of BackupAndRestore must be {choices}; got {value!r}.")
    return str(value)


def folder_of(backup_dir: Any) -> str:
    """Return the path of a folder as text.

    Raises:
        ValueError: If it is neither a path nor a URL.

    Example:
        >>> folder_of("runs/backup")
        'runs/backup'
    """
    if not isinstance(backup_dir, (str, os.PathLike)) or not os.fspath(backup_dir):
        raise ValueError(
            "`backup_dir` of BackupAndRestore must be the path of a folder, such as 'runs/backup', or its URL; got "
            f"{backup_dir!r} of type {type(backup_dir).__name__}."
        )
    return str(os.fspath(backup_dir))


def period_of(save_freq: Any, every: str | Every | None) -> Every:
    """Return the period that `save_freq` and `every` ask for.

    Raises:
        ValueError: If both are given, or one isn't a period.

    Example:
        >>> period_of(100, None)
        Every('100 steps')
    """
    if every is not None:
        if save_freq != "epoch":
            raise ValueError(
                f"BackupAndRestore takes one period; got save_freq={save_freq!r} and every={every!r}. Use only `every`."
            )
        return Every(every, "BackupAndRestore")
    if isinstance(save_freq, str) and save_freq == "epoch":
        return Every("1 epoch")
    try:
        return Every(f"{whole('BackupAndRestore', 'save_freq', save_freq, least=1)} steps")
    except ValueError:
        raise ValueError(
            f"`save_freq` of BackupAndRestore must be 'epoch' or a whole number of batches, 1 or more; got {save_freq!r} "
            f"of type {type(save_freq).__name__}. For other periods use `every`, such as every='10 minutes'."
        ) from None


def rules_of(keep: Any) -> tuple[Rule, ...]:
    """Return the rules by which states of the ends of epochs stay; none for None.

    Raises:
        ValueError: For what is no rule, and rules that compare scores, which states don't have.

    Example:
        >>> rules_of("all"), rules_of(None)
        ((KeepEvery(count=1),), ())
    """
    if keep is None:
        return ()
    from oncue.checkpoints.retention import KeepEvery, as_rules

    rules = (KeepEvery(1),) if isinstance(keep, str) and keep == "all" else as_rules(keep, "BackupAndRestore")
    if any(needs_score(rule) for rule in rules):
        raise ValueError(
            f"`keep` of BackupAndRestore must be 'all', a number of states, 'last 3', 'every 5' (epochs), or a list of these; "
            f"got {keep!r}, but the state of a run has no score. Keep the best models by `ModelCheckpoint(keep='best 3')`."
        )
    return rules


def are_for(rules: Sequence[Rule], epochs: int) -> bool:
    """Return whether a rule keeps the state after so many epochs, of which it knows no other.

    Example:
        >>> are_for(rules_of("every 5"), 10), are_for(rules_of("every 5"), 11), are_for(rules_of(3), 11)
        (True, False, True)
    """
    if not rules or not epochs:
        return False
    from oncue.checkpoints.record import Record

    record = Record("", epoch=epochs)
    return any(record.file in rule.kept([record], None) for rule in rules)
