"""How the processes of a run find each other, and what is wrong when they don't."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, Store as Store, TCPStore  # type: ignore[attr-defined]  # documented, not declared

from oncue.distribution.launched import Place


class Meeting:
    """The stores of processes that have found each other: one for torch's group, one for what they tell of themselves.

    Args:
        place: Which of the processes this one is.
        timeout: Seconds after which it no longer waits for the others.
        number: How often it has met them before.

    Raises:
        TimeoutError: When some of the others don't come; it names them.
        RuntimeError: When two processes have one number, or were told different numbers of processes; when the port is taken.
    """

    def __init__(self, place: Place, timeout: float, number: int = 0) -> None:
        self._place, self._patience = place, timedelta(seconds=timeout)
        environment = os.environ
        # torchrun may keep the store itself: those that it starts again must not meet those that failed.
        self.serves = place.rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        attempt = f"oncue {environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        prefix = f"{attempt} {number}"
        self.for_group = PrefixStore(prefix, self._store(self.serves))
        # Whoever waits in one store keeps it from others, so there are two.
        self.for_failures = PrefixStore(prefix, self._store(False))
        before = None if number == 0 else PrefixStore(f"{attempt} {number - 1}", self.for_failures.underlying_store)
        try:
            self._register(before)
        except dist.DistNetworkError as error:
            raise RuntimeError("Process 0, where the processes meet, ended while others were still coming.") from error

    def _store(self, serves: bool) -> TCPStore:
        place = self._place
        try:
            return TCPStore(
                place.address,
                place.port,
                is_master=serves,
                timeout=self._patience,
                wait_for_workers=False,
                multi_tenant=serves,
            )
        except dist.DistNetworkError as error:
            if serves:
                raise RuntimeError(
                    f"Port {place.port} can't be used for the processes to meet: another program or run may have it. Set "
                    f"MASTER_PORT (torchrun: `--master-port`) to a free one. {_first_line(error)}"
                ) from error
            raise TimeoutError(
                f"Process {place.rank} of {place.size} found nobody at {place.address}:{place.port} within "
                f"{self._patience.total_seconds():g} s: process 0 hasn't come, or MASTER_ADDR or MASTER_PORT is wrong. "
                f"{_first_line(error)}"
            ) from error

    def _register(self, before: Store | None) -> None:
        place, store = self._place, self.for_failures
        first = store.compare_set("size", "", str(place.size)).decode()
        if first != str(place.size):
            raise RuntimeError(
                f"Process {place.rank} was told that there are {place.size} processes, another that there are {first}: let "
                "WORLD_SIZE, or `num_processes` of `initialize`, be the same for all."
            )
        if store.add(f"came {place.rank}", 1) > 1:
            raise RuntimeError(
                f"Two processes say that they are process {place.rank} of {place.size}: give each its own RANK, or "
                "`process_id` of `initialize`, from 0."
            )
        if store.add("came", 1) == place.size:
            store.set("all came", "")
        deadline = time.monotonic() + self._patience.total_seconds()
        # `wait` of the store would write to the output how long it has waited.
        while not store.check(["all came"]):
            # Who has left since they met last won't come again.
            left = before is not None and before.add("left", 0) > 0
            if left or time.monotonic() > deadline:
                raise TimeoutError(self._missing("before their scripts ended" if left else ""))
            time.sleep(min(0.05 + place.size / 500, 1.0))

    def _missing(self, when: str) -> str:
        place, store = self._place, self.for_failures
        missing = [str(rank) for rank in range(place.size) if store.add(f"came {rank}", 0) == 0]
        named = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        when = when or f"within {self._patience.total_seconds():g} s"
        return (
            f"Of the {place.size} processes of this run, these haven't come {when}: {named}. Look into their output, or wait "
            "longer with `keras.distribution.initialize(timeout=...)`."
        )


def common_store(timeout: float) -> Store:
    """Return a store that all processes of a group reach which the script has made itself.

    Args:
        timeout: Seconds after which a process no longer waits for it.
    """
    patience, main = timedelta(seconds=timeout), dist.get_rank() == 0
    sent: list[tuple[str, int] | None] = [None]
    kept = None
    if main:
        kept = TCPStore("0.0.0.0", 0, is_master=True, timeout=patience, wait_for_workers=False)
        sent = [(os.environ.get("MASTER_ADDR") or socket.gethostname(), kept.port)]
    dist.broadcast_object_list(sent)
    if kept is not None:
        return kept
    assert sent[0] is not None
    address, port = sent[0]
    return TCPStore(address, port, is_master=False, timeout=patience, wait_for_workers=False)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
