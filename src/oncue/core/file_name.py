"""FileName: a template for file names, filled with numbers, that can't lead out of its folder."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from oncue.core.files import OF_PARTS
from oncue.core.suggest import nearest

_LONGEST = 99
# Devices of Windows, whatever ending follows.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?=\.|$)")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


class FileNameError(KeyError, ValueError):
    """A template, or what should fill it, is not right; a KeyError too, as that is what Keras raises."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class FileName:
    """A file name with placeholders, such as `"model_{epoch:02d}-{val_loss:.2f}.keras"`.

    A placeholder is a name and a format; attributes, indices and conversions are refused. What a value puts into the
    name never makes a folder or a device: characters that mean something to a file system, of whatever system, become `_`.

    Args:
        template: The name; `{{` and `}}` stand for braces.
        owner: Who asks, for messages.
        counts: The names that stand for whole numbers.

    Attributes:
        names: The names in it, in order.
        folder: The folder of all files that can come out of it; "" for the current one.

    Raises:
        FileNameError: For a template that can't be read, or a placeholder that is more than a name and a format.

    Example:
        >>> FileName("m_{epoch:02d}-{val_loss:.2f}.keras").fill({"epoch": 3, "val_loss": 0.25})
        'm_03-0.25.keras'
        >>> FileName("{city}.csv").fill({"city": "../etc"})
        '___etc.csv'
    """

    def __init__(self, template: str, owner: str = "FileName", counts: Iterable[str] = ("epoch", "batch")) -> None:
        self.template = template
        self.owner = owner
        counts = tuple(counts)
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise self._error(f"can't be read: {error}. Use `{{{{` and `}}}}` for braces.") from None
        self._pieces: list[tuple[str, str | None, str]] = []
        for literal, name, form, conversion in pieces:
            if name is not None:
                self._check(name, form or "", conversion, name in counts)
            self._pieces.append((literal, name, form or ""))
        self.names = tuple(dict.fromkeys(name for _, name, _ in self._pieces if name is not None))
        fixed = next((literal for literal, name, _ in self._pieces if name is not None), None)
        self.folder = os.path.dirname(self._plain() if fixed is None else fixed)

    @property
    def plain_name(self) -> str:
        """The last part of the template, with words for placeholders: "m_epoch.keras" for "m_{epoch:02d}.keras"."""
        return os.path.basename(self._plain())

    @property
    def pattern(self) -> str:
        """A regular expression for the last part of all names that can come out of it, or for their beginnings."""
        marked = "".join(literal + ("" if name is None else "\0") for literal, name, _ in self._pieces)
        return ".*".join(re.escape(part) for part in os.path.basename(marked).split("\0")) + "|.{50}"

    def fits(self, file: str) -> bool:
        """Return whether a path, from `folder`, can come out of it.

        Args:
            file: The path, with `/` between parts.

        Example:
            >>> name = FileName("runs/m_{epoch:02d}.keras")
            >>> name.fits("m_03.keras"), name.fits("notes.txt"), name.fits("m_0/3.keras")
            (True, False, False)
        """
        marked = "".join(literal + ("" if name is None else "\0") for literal, name, _ in self._pieces)
        wanted = os.path.normpath(marked).replace(os.sep, "/").split("\0")
        path = os.path.normpath(os.path.join(self.folder, file)).replace(os.sep, "/")
        return re.fullmatch("[^/]*".join(map(re.escape, wanted)), path) is not None

    def existing(self) -> list[str]:
        """Return the paths of the files that have such a name; placeholders in the names of folders aren't looked for."""
        folder, name = os.path.split(
            "".join(literal + ("" if one is None else "\0") for literal, one, _ in self._pieces)
        )
        if "\0" in folder or not os.path.isdir(folder or os.curdir):
            return []
        pattern = ".*".join(re.escape(part) for part in name.split("\0"))
        found = (
            os.path.join(folder, one) for one in sorted(os.listdir(folder or os.curdir)) if re.fullmatch(pattern, one)
        )
        return [path for path in found if os.path.isfile(path) or (path.endswith(OF_PARTS) and os.path.isdir(path))]

    def check_names(self, known: Iterable[str], hint: str = "") -> None:
        """Refuse a name that nothing will fill.

        Args:
            known: The names that there will be.
            hint: A sentence to end the message with.

        Raises:
            FileNameError: With the names, and the nearest.
        """
        known = list(known)
        for name in self.names:
            if name not in known:
                raise self._missing(name, known, hint)

    def check_numbers(self, names: Iterable[str]) -> None:
        """Refuse a format that doesn't fit a number that isn't whole.

        Args:
            names: The names that stand for such numbers.

        Raises:
            FileNameError: With the placeholder.
        """
        names = set(names)
        for _, name, form in self._pieces:
            if name in names and not _fits(0.5, form):
                raise self._error(
                    f"has {{{name}:{form}}}, and the values of {name} are floats, which that format can't show. Use "
                    f"{{{name}:.4f}}."
                )

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the name with values in place of the placeholders.

        Args:
            values: From each name to its value.

        Returns:
            The path.

        Raises:
            FileNameError: For a name without a value, or a value that its format doesn't fit.
        """
        parts = []
        for literal, name, form in self._pieces:
            parts.append(literal)
            if name is None:
                continue
            try:
                value = values[name]
            except KeyError:
                raise self._missing(name, list(values)) from None
            try:
                parts.append(_harmless(format(value, form)))
            except (TypeError, ValueError) as error:
                raise self._error(f"can't take {name}={value!r} of type {type(value).__name__}: {error}.") from None
        return "".join(parts)

    def _plain(self) -> str:
        return "".join(literal + (name or "") for literal, name, _ in self._pieces)

    def _check(self, name: str, form: str, conversion: str | None, whole: bool) -> None:
        shown = "{" + name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
        if not name or name.isdigit():
            raise self._error(f"has a placeholder without a name, {shown}. Use a name such as {{epoch}}.")
        if conversion or set("{}") & set(form) or set(".[]/\\!") & set(name):
            raise self._error(
                f"has the placeholder {shown}; only a name and a format are allowed, such as {{epoch:02d}} or "
                "{val_loss:.4f}."
            )
        if any(int(number) > _LONGEST for number in re.findall(r"\d+", form)):
            raise self._error(f"has the placeholder {shown}, which is wider than {_LONGEST} characters.")
        examples: tuple[Any, ...] = (1,) if whole else (1.0, 1, "a")
        if not any(_fits(example, form) for example in examples):
            like = "{epoch:02d}" if whole else "{val_loss:.4f}"
            raise self._error(f"has the placeholder {shown}, whose format is not one for numbers. Use one like {like}.")

    def _missing(self, name: str, known: list[str], hint: str = "") -> FileNameError:
        guess = nearest(name, known)
        ask = f" Did you mean {{{guess}}}?" if guess is not None else ""
        return self._error(f"has {{{name}}}, which there is no value for.{ask} Known: {', '.join(known)}.{hint}")

    def _error(self, what: str) -> FileNameError:
        return FileNameError(f"The file name '{self.template}' of {self.owner} {what}")


def _harmless(text: str) -> str:
    text = _UNSAFE.sub("_", text)[:_LONGEST].replace("..", "__")
    text = _RESERVED.sub(r"\1_", text, count=1) if _RESERVED.match(text) else text
    return text if text.strip(". ") else "_" * max(len(text), 1)


def _fits(value: Any, form: str) -> bool:
    try:
        format(value, form)
    except ValueError:
        return False
    return True
