"""The page of old words says what the tables say."""

from __future__ import annotations

from pathlib import Path

from oncue.legacy import document
from oncue.legacy.arguments import ARGUMENTS, OF_KERAS_2, OF_TF_KERAS

PAGE = Path(__file__).parents[2] / "docs" / "old_words.md"


def test_the_page_is_made_from_the_tables() -> None:
    made = document.document()
    assert PAGE.read_text(encoding="utf-8") == made, "python -m oncue.legacy.document > docs/old_words.md"


def test_words_are_on_the_page() -> None:
    rows = document.document().splitlines()
    for row in (
        "| `objectives` | Keras 1 | `losses` |",
        "| `Dense(output_dim=)` | Keras 1 | `units` |",
        "| `backend.mean` | Keras 1 | `ops.mean` |",
        "| `tf.random.set_seed` | TensorFlow | `utils.set_random_seed` |",
        "| `fit_generator` | Keras 1 | `fit` |",
        "| `acc` | `accuracy`, `categorical_accuracy`, `sparse_categorical_accuracy`, `binary_accuracy` |",
    ):
        assert row in rows, row
    assert any(row.startswith("| `GradientTape` | TensorFlow |") for row in rows)


def test_each_argument_of_a_later_generation_is_in_the_table() -> None:
    for owner, name in OF_KERAS_2 | OF_TF_KERAS:
        assert name in ARGUMENTS[owner], (owner, name)
