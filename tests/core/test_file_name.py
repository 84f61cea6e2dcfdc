"""FileName: what a template may hold, and that no value leads out of its folder."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, strategies as st

from oncue.core.file_name import FileName, FileNameError


def test_names_and_formats() -> None:
    name = FileName("run/{epoch:02d}-{val_loss:.4f}-{batch}.keras")
    assert name.names == ("epoch", "val_loss", "batch")
    assert name.folder == "run"
    assert name.plain_name == "epoch-val_loss-batch.keras"
    assert name.fill({"epoch": 3, "val_loss": 0.5, "batch": 7, "other": 1}) == "run/03-0.5000-7.keras"


def test_braces_of_the_name_itself() -> None:
    assert FileName("{{a}}_{epoch}.keras").fill({"epoch": 1}) == "{a}_1.keras"


@pytest.mark.parametrize(
    ("template", "folder"),
    [
        ("m.keras", ""),
        ("a/b/m.keras", "a/b"),
        ("a/run{epoch}/m.keras", "a"),
        ("{epoch}/m.keras", ""),
        ("/m.keras", "/"),
    ],
)
def test_the_folder_of_all_names(template: str, folder: str) -> None:
    assert FileName(template).folder == folder


@pytest.mark.parametrize(
    "template",
    [
        "{epoch.__class__}",
        "{epoch.real}",
        "{epoch[0]}",
        "{}",
        "{0}",
        "{epoch!r}",
        "{epoch:{batch}}",
        "{epoch",
        "epoch}",
        "{epoch:.2q}",
        "{epoch:0500d}",
        "{val_loss:999999999}",
        "{a/b}",
        "{..}",
    ],
)
def test_more_than_a_name_and_a_format_is_refused(template: str) -> None:
    with pytest.raises(FileNameError, match="file name"):
        FileName(f"m_{template}.keras", "ModelCheckpoint")


def test_a_name_without_a_value() -> None:
    with pytest.raises(KeyError, match=r"Did you mean \{val_loss\}"):
        FileName("{val_los}.keras").fill({"val_loss": 0.5})
    with pytest.raises(ValueError, match="Known: epoch, loss"):
        FileName("{accuracy}.keras").check_names(["epoch", "loss"])


def test_a_value_that_its_format_does_not_fit() -> None:
    with pytest.raises(FileNameError, match="can't take loss='high' of type str"):
        FileName("{loss:.2f}.keras").fill({"loss": "high"})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("../../etc/passwd", "______etc_passwd"),
        ("..", "__"),
        (".", "_"),
        ("", "_"),
        ("a\x00b\\c:d*?", "a_b_c_d__"),
        ("/root", "_root"),
        ("1..2", "1__2"),
        ("0.5", "0.5"),
    ],
)
def test_values_are_made_harmless(value: str, name: str) -> None:
    assert FileName("x/{value}/m.keras").fill({"value": value}) == f"x/{name}/m.keras"


def test_a_fill_character_makes_no_folder() -> None:
    assert FileName("{epoch:/>4}.keras").fill({"epoch": 1}) == "___1.keras"


@given(
    st.sampled_from(
        ["x/{a}{b}/m.keras", "x/{a}/{b}/m.keras", "x/{a}.keras", "x/.{a}/m{b}.keras", "x/..{a}/y{b}.keras"]
    ),
    st.text(max_size=120) | st.text("./\\\0: ~", max_size=6),
    st.text("./\\\0: ~", max_size=6) | st.floats() | st.integers(),
)
def test_no_value_leads_out_of_the_folder(template: str, a: Any, b: Any) -> None:
    path = FileName(template).fill({"a": a, "b": b})
    assert path.count("/") == template.count("/")
    assert "\x00" not in path and "\\" not in path
    assert os.path.normpath(path).startswith("x/")
    assert all(len(part) <= 220 for part in path.split("/"))
