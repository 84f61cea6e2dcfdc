"""What processes are told that don't find each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from processes import free_port

from oncue.distribution.launched import Place
from oncue.distribution.meeting import Meeting


def met(*places: tuple[int, int], timeout: float = 1.0, number: int = 0) -> list[Any]:
    """Let processes meet, here threads, that have been told these ranks and sizes; return what each gets, or its error."""
    port = free_port()

    def come(place: tuple[int, int]) -> Any:
        try:
            return Meeting(Place(*place, place[0], "127.0.0.1", port), timeout, number)
        except (TimeoutError, RuntimeError) as error:
            return error

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(come, places))


def test_all_come() -> None:
    assert all(isinstance(one, Meeting) for one in met((0, 3), (1, 3), (2, 3), timeout=20.0))


def test_those_that_dont_come_are_named() -> None:
    for error in met((0, 4), (2, 4)):
        assert isinstance(error, TimeoutError) and "4 processes" in str(error) and ": 1, 3." in str(error)


def test_where_nobody_waits() -> None:
    (error,) = met((1, 2), timeout=0.5)
    assert isinstance(error, TimeoutError) and "process 0 hasn't come" in str(error)


def test_two_that_have_the_same_number() -> None:
    said = [str(error) for error in met((0, 3), (1, 3), (1, 3))]
    assert any("Two processes say that they are process 1 of 3" in one for one in said)


def test_different_numbers_of_processes() -> None:
    said = [str(error) for error in met((0, 2), (1, 3))]
    assert any("WORLD_SIZE" in one for one in said)


def test_a_port_that_is_taken() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(RuntimeError, match="MASTER_PORT"):
            Meeting(Place(0, 2, 0, "127.0.0.1", listener.getsockname()[1]), 1.0)
