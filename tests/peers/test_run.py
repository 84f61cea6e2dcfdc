"""How the results of Keras's own tests are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peers import run
from peers.run import Difference, Result

PASSED, FAILED, SKIPPED = Result("passed", ""), Result("failed", "AssertionError: 1 != 2"), Result("skipped", "")


def test_what_fails_and_is_not_listed_is_a_regression() -> None:
    keras = {"losses/a_test.py::A::x": PASSED, "losses/a_test.py::A::y": PASSED, "losses/a_test.py::A::z": FAILED}
    found = run.compare(keras, {"losses/a_test.py::A::x": PASSED, "losses/a_test.py::A::y": FAILED}, [])
    assert found["regressions"] == {"losses/a_test.py::A::y": FAILED}
    assert found["counts"]["losses"] == {"passed": 1, "unexplained": 1, "failing with Keras": 1}


def test_a_test_without_a_result_is_a_regression() -> None:
    found = run.compare({"losses/a_test.py::A::x": PASSED}, {}, [])
    assert "no result" in found["regressions"]["losses/a_test.py::A::x"].text


def test_what_is_listed_counts_by_its_kind() -> None:
    keras = dict.fromkeys(["models/m_test.py::A::w", "models/m_test.py::A::d", "models/m_test.py::B::n"], PASSED)
    keras["models/m_test.py::A::s"] = SKIPPED
    listed = [
        Difference("models/m_test.py::A::w", "wording", "other words"),
        Difference("models/m_test.py::A::d", "differs", "a promise"),
        Difference("models/m_test.py::B::*", "not applicable", "private"),
    ]
    found = run.compare(keras, dict.fromkeys(keras, FAILED), listed)
    count = found["counts"]["models"]
    assert count == {"wording": 1, "differs": 1, "not applicable": 1, "skipped": 1} and not found["regressions"]
    assert run.share(count) == 0.5


def test_a_listed_test_that_passes_is_named() -> None:
    listed = [Difference("losses/a_test.py::A::x", "differs", "no longer")]
    found = run.compare({"losses/a_test.py::A::x": PASSED}, {"losses/a_test.py::A::x": PASSED}, listed)
    assert found["mended"] == ["losses/a_test.py::A::x"]


def test_a_failure_counts_more_than_a_pass_of_the_same_test(tmp_path: Path) -> None:
    entries = [{"test": "a", "outcome": outcome, "text": "", "seconds": 0.1} for outcome in ("passed", "failed")]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    assert run.read_results(path)["a"].outcome == "failed"


def test_every_entry_of_the_list_has_a_kind_and_a_reason(tmp_path: Path) -> None:
    assert all(len(known.reason) > 10 for known in run.read_differences())
    bad = tmp_path / "differences.toml"
    bad.write_text('[[difference]]\ntests = "x"\nkind = "differs"\nreason = " "\n')
    with pytest.raises(ValueError, match="reason"):
        run.read_differences(bad)


@pytest.mark.slow
def test_a_file_of_keras_runs_against_both(tmp_path: Path) -> None:
    file = run.wheel() / "callbacks" / "lambda_callback_test.py"
    for peer in ("keras", "oncue"):
        run.run_tests(peer, [file], tmp_path / f"{peer}.jsonl", 1)
        found = run.read_results(tmp_path / f"{peer}.jsonl")
        assert len(found) > 1 and {result.outcome for result in found.values()} <= {"passed", "skipped"}
