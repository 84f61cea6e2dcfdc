"""The page of old words in the docs, made from the tables: `python -m oncue.legacy.document > docs/old_words.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from oncue.core.hooks import ALIASES
from oncue.legacy.arguments import ARGUMENTS, ARGUMENTS_REFUSED, IGNORED, OF_KERAS_2, OF_TF_KERAS
from oncue.legacy.backend_names import BACKEND, TENSORFLOW_NAMES
from oncue.legacy.log_keys import LOG_KEYS
from oncue.legacy.methods import METHODS, OF_SAMPLES
from oncue.legacy.modules import ATTRIBUTES, CALLED, METHODS_REFUSED, MODULES, PARTS, REFUSED, SILENT_MODULES
from oncue.legacy.names import LAYER_NAMES, NAMES
from oncue.legacy.params import PARAMS
from oncue.legacy.preprocessing_names import PREPROCESSING
from oncue.legacy.words import KERAS_1, KERAS_2, TF_KERAS, Old, Refused

_INTRODUCTION = """# Old words

Code that was written for Keras 1, Keras 2, tf.keras or TensorFlow beside them finds its words under oncue's name:
`import oncue as keras`, `from oncue.layers import Dense`, `import oncue as tf`. `oncue check SCRIPT` lists those of a
script, with what becomes of each. An old word warns once, and names today's; keys of logs and histories, and names such
as "mse", stay silent. What can't be honoured is an error that says so. This page is made from the tables in `oncue/legacy`.
"""


def document() -> str:
    """Return the page as Markdown.

    Example:
        >>> document().splitlines()[0]
        '# Old words'
    """
    elsewhere = {**{f"oncue.backend.{name}": None for name in BACKEND}, **TENSORFLOW_NAMES, **PREPROCESSING}
    attributes = {name: word for name, word in ATTRIBUTES.items() if name not in elsewhere}
    silent = {name: Old(new, TF_KERAS) for name, new in SILENT_MODULES.items()}
    parts = {name: Old(name.rpartition(".")[0], TF_KERAS) for name in PARTS}
    parts_of = [
        _table("Modules", "Module", {**MODULES, **silent, **parts}),
        _table("Names", "Name", {**attributes, **{f"{name}(...)": word for name, word in CALLED.items()}}),
        _table("Data helpers", "Name", PREPROCESSING),
        _table("The backend", "Function", {f"backend.{name}": word for name, word in BACKEND.items()}),
        _table(
            "TensorFlow beside Keras", "Name", {f"tf.{_short(name)}": word for name, word in TENSORFLOW_NAMES.items()}
        ),
        _table("Methods and attributes", "Of layers, models, optimizers, callbacks", METHODS),
        _table("Arguments", "Argument", _arguments()),
        _table("Keys of `self.params` in callbacks", "Key", PARAMS),
        _table("Hooks", "Hook", {old: Old(new, KERAS_1) for old, new in sorted(ALIASES.items())}),
        _rows(
            "Keys of logs and histories",
            ("Key", "Found under"),
            ((f"`{old}`", ", ".join(f"`{new}`" for new in names)) for old, names in sorted(LOG_KEYS.items())),
        ),
        _rows(
            "Other names in `compile` and layers",
            ("Of a", "Name", "Known as"),
            ((kind, f"`{old}`", f"`{new}`") for kind, names in NAMES.items() for old, new in sorted(names.items())),
        ),
        _rows(
            "Automatic names of layers in Keras 1, which counted from 1",
            ("`get_layer`", "Finds the layer of that number among"),
            ((f"`{old}_1`", f"`{new}`") for old, new in sorted(LAYER_NAMES.items())),
        ),
        _rows("What can't be honoured", ("Name", "From", "Why", "Today"), _refused()),
    ]
    return "\n".join([_INTRODUCTION, *parts_of])


def _short(name: str) -> str:
    return name.removeprefix("oncue.")


def _table(title: str, head: str, words: Mapping[str, Old]) -> str:
    rows = ((f"`{_short(old)}`", word.since, _today(word.new)) for old, word in sorted(words.items()))
    return _rows(title, (head, "From", "Today"), rows)


def _today(new: str | None) -> str:
    return "leave it out" if new is None else f"`{new.replace('oncue.', '')}`"


def _arguments() -> dict[str, Old]:
    found: dict[str, Old] = {}
    for owner, table in ARGUMENTS.items():
        for old, new in table.items():
            since = KERAS_2 if (owner, old) in OF_KERAS_2 else TF_KERAS if (owner, old) in OF_TF_KERAS else KERAS_1
            found[f"{owner}({old}=)"] = Old(new, since)
    for owner, names in IGNORED.items():
        found.update({f"{owner}({name}=)": Old(None, KERAS_2) for name in names})
    found.update({f"fit_generator({old}=)": Old(new, KERAS_1) for old, new in OF_SAMPLES.items()})
    return found


def _refused() -> Iterable[tuple[str, ...]]:
    words: dict[str, Refused] = {
        **{_short(name): word for name, word in REFUSED.items()},
        **{f".{name}": word for name, word in METHODS_REFUSED.items()},
        **{f"{owner}({name}=)": word for owner, words in ARGUMENTS_REFUSED.items() for name, word in words.items()},
    }
    return ((f"`{name}`", word.since, word.reason, word.way) for name, word in sorted(words.items()))


def _rows(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(document(), end="")
