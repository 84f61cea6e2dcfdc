"""Pictures and texts out of a folder, whose folders are the classes, as torch data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from oncue.core.console import print_message
from oncue.core.numbers import number_of, sizes_of, whole
from oncue.core.suggest import unknown
from oncue.preprocessing.loader import FileLoader, check_format

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_COLOURS = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
_INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic")
_LABELS = ("int", "categorical", "binary", None)
_SUBSETS = ("training", "validation", "both", None)


class Files(Dataset[Any]):
    """Files and what they are labelled with, read when they are asked for.

    Args:
        paths: The files.
        labels: A label for each, or None for files alone.
        read: What makes a sample of a file.

    Example:
        >>> Files(["a.txt"], None, len)[0]
        5
    """

    def __init__(self, paths: Sequence[str], labels: torch.Tensor | None, read: Callable[[str], Any]) -> None:
        self.paths, self.labels, self.read = list(paths), labels, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        sample = self.read(self.paths[index])
        return sample if self.labels is None else (sample, self.labels[index])


class ReadPicture:
    """Reads a picture as a tensor of floats from 0 to 255.

    Args:
        mode: Pillow's name of the colours.
        size: The height and the width to bring it to.
        interpolation: How.
        fit: "crop" to cut, or "pad" to fill up, what has other proportions; None to stretch it.
        channels_first: Whether the colours come before the height.
    """

    def __init__(
        self, mode: str, size: tuple[int, int], interpolation: str, fit: str | None, channels_first: bool
    ) -> None:
        self.mode, self.size, self.interpolation = mode, size, interpolation
        self.fit, self.channels_first = fit, channels_first

    def __call__(self, path: str) -> torch.Tensor:
        """Return the picture."""
        image, ops = _pillow()
        resampling = image.Resampling
        ways = {"nearest": resampling.NEAREST, "bilinear": resampling.BILINEAR, "area": resampling.BOX}
        ways |= {"lanczos3": resampling.LANCZOS, "lanczos5": resampling.LANCZOS}
        way = ways.get(self.interpolation, resampling.BICUBIC)
        height, width = self.size
        try:
            with image.open(path) as file:
                picture = file.convert(self.mode)
        except OSError as error:
            raise ValueError(f"{path} is not a picture that Pillow can read: {error}") from error
        if self.fit == "crop":
            picture = ops.fit(picture, (width, height), way)
        elif self.fit == "pad":
            picture = ops.pad(picture, (width, height), way)
        else:
            picture = picture.resize((width, height), way)
        pixels = np.asarray(picture, dtype=np.float32)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy() if self.channels_first else pixels.copy())


class ReadText:
    """Reads a text.

    Args:
        most: How many characters of it count; None for all.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most

    def __call__(self, path: str) -> str:
        """Return the text."""
        return Path(path).read_text(encoding="utf-8")[: self.most]


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: Any = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "torch",
    verbose: bool = True,
) -> Any:
    """Return the pictures of a folder as batches, which `fit` takes: a torch DataLoader with `class_names`.

    Pictures are read by Pillow when they are asked for, and each is brought to one size. Which files are for training and
    which for validation, by a seed, is as in Keras.

    Args:
        directory: A folder with a folder for each class; without labels one of pictures.
        labels: "inferred" from the folders, None, or a list with a label for each file, in the order of their paths.
        label_mode: "int", "binary" (0.0 and 1.0 for two classes), "categorical" (rows with a 1), or None for no labels.
        class_names: The folders, in the order of their labels; by default in that of their names.
        color_mode: "rgb", "rgba" or "grayscale".
        batch_size: Pictures in a batch; None for single pictures.
        image_size: The height and the width.
        shuffle: Whether each pass has another order; else they come by their paths.
        seed: The seed of the order. Needed with `validation_split`, so that the two parts have no file in common.
        validation_split: The share for validation.
        subset: "training", "validation", or "both" for a pair.
        interpolation: How pictures are brought to their size: "bilinear", "nearest", "bicubic", "area", "lanczos3".
        follow_links: Whether to look into folders that are links.
        crop_to_aspect_ratio: Cut what doesn't have the proportions of `image_size`, in the middle, rather than stretch it.
        pad_to_aspect_ratio: Fill it up instead.
        data_format: "channels_last" or "channels_first"; by default what `config.image_data_format()` says.
        format: "torch"; "tf" and "grain", which Keras takes, are understood, and give the same.
        verbose: Whether to print how many files there are.

    Returns:
        The batches `(pictures, labels)`, or pictures alone: floats from 0 to 255 of shape (batch, height, width, colours).

    Raises:
        ImportError: Without Pillow.
        ValueError: For an argument that can't be used, or a folder without pictures.
    """
    from oncue import backend

    if color_mode not in _COLOURS:
        raise unknown("`color_mode`", color_mode, _COLOURS)
    if interpolation not in _INTERPOLATIONS:
        raise unknown("`interpolation`", interpolation, _INTERPOLATIONS)
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("Only one of `crop_to_aspect_ratio` and `pad_to_aspect_ratio` can be True.")
    size = sizes_of(image_size)
    if len(size) != 2:
        raise ValueError(f"`image_size` must be the height and the width; got {image_size!r}.")
    _pillow()
    fit = "crop" if crop_to_aspect_ratio else ("pad" if pad_to_aspect_ratio else None)
    check_format(format)
    order = backend.image_data_format() if data_format is None else data_format
    read = ReadPicture(_COLOURS[color_mode], (size[0], size[1]), interpolation, fit, order == "channels_first")
    return _loaders(
        directory, PICTURES, read, labels, label_mode, class_names, batch_size, shuffle, seed, validation_split, subset,
        follow_links, verbose,
    )  # fmt: skip


def text_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    format: str = "torch",
    verbose: bool = True,
) -> Any:
    """Return the texts of a folder as batches: a torch DataLoader with `class_names`.

    A batch has a list of texts, which `map` turns into numbers: `data.map(lambda texts, labels: (encode(texts), labels))`.

    Args:
        directory: A folder with a folder for each class; without labels one of files that end in ".txt".
        labels: As for `image_dataset_from_directory`.
        label_mode: The same.
        class_names: The same.
        batch_size: Texts in a batch; None for single texts.
        max_length: How many characters of a text count; None for all.
        shuffle: Whether each pass has another order.
        seed: The seed of the order.
        validation_split: The share for validation.
        subset: "training", "validation", or "both" for a pair.
        follow_links: Whether to look into folders that are links.
        format: "torch"; "tf" and "grain", which Keras takes, are understood, and give the same.
        verbose: Whether to print how many files there are.

    Returns:
        The batches `(texts, labels)`, or texts alone.

    Raises:
        ValueError: For an argument that can't be used, or a folder without texts.
    """
    check_format(format)
    return _loaders(
        directory, (".txt",), ReadText(max_length), labels, label_mode, class_names, batch_size, shuffle, seed,
        validation_split, subset, follow_links, verbose,
    )  # fmt: skip


def _loaders(
    directory: str | os.PathLike[str],
    endings: tuple[str, ...],
    read: Callable[[str], Any],
    labels: Any,
    label_mode: str | None,
    class_names: Sequence[str] | None,
    batch_size: int | None,
    shuffle: bool,
    seed: int | None,
    validation_split: float | None,
    subset: str | None,
    follow_links: bool,
    verbose: bool,
) -> Any:
    if label_mode not in _LABELS:
        raise unknown("`label_mode`", label_mode, [str(mode) for mode in _LABELS])
    if subset not in _SUBSETS:
        raise unknown("`subset`", subset, [str(one) for one in _SUBSETS])
    share = 0.0 if validation_split is None else number_of(validation_split)
    if share is None or not 0 <= share < 1:
        raise ValueError(f"`validation_split` must be a number of at least 0 and below 1; got {validation_split!r}.")
    if bool(share) != (subset is not None):
        raise ValueError(
            "`validation_split` and `subset` go together: `validation_split=0.2, subset='both', seed=1` gives a pair; got "
            f"validation_split={validation_split!r} and subset={subset!r}."
        )
    if share and subset != "both" and shuffle and seed is None:
        raise ValueError(
            "With `validation_split` and `shuffle=True`, `seed` is needed, the same in both calls: else a file may be in both "
            "parts."
        )
    if batch_size is not None:
        batch_size = whole("", "batch_size", batch_size, least=1)
    labelled = labels is not None and label_mode is not None
    root = Path(directory)
    if not root.is_dir():
        raise ValueError(f"`directory` must be a folder; there is none at {str(directory)!r}.")
    folders = sorted(one.name for one in root.iterdir() if one.is_dir()) if labels == "inferred" else [""]
    if class_names is not None:
        if labels != "inferred" or set(class_names) != set(folders):
            raise ValueError(
                f"`class_names` must be the folders of {str(directory)!r}, {folders}; got {list(class_names)}."
            )
        folders = list(class_names)
    paths, numbers = _listed(root, folders, endings, follow_links)
    if not paths:
        hint = " Pass `labels=None` for files without classes." if labels == "inferred" and not folders else ""
        raise ValueError(f"There are no files with the endings {', '.join(endings)} in {str(directory)!r}.{hint}")
    names: list[str] | None = folders if labels == "inferred" else None
    if labels is not None and not isinstance(labels, str):
        if len(labels) != len(paths):
            raise ValueError(f"`labels` must have a label for each of the {len(paths)} files; got {len(labels)}.")
        names = [str(label) for label in sorted(set(labels))]
        numbers = [int(label) for label in labels]
    elif labels not in (None, "inferred"):
        raise ValueError(f"`labels` must be 'inferred', None, or a list of whole numbers; got {labels!r}.")
    if label_mode == "binary" and labelled and len(names or ()) != 2:
        raise ValueError(f"`label_mode='binary'` needs two classes; there are {names}.")
    if verbose:
        print_message(
            f"Found {len(paths)} files belonging to {len(names)} classes." if names else f"Found {len(paths)} files."
        )
    if shuffle:
        drawn = np.random.randint(10**6) if seed is None else seed
        order = np.arange(len(paths))
        # Keras's generator, so that the parts are the same.
        np.random.RandomState(drawn).shuffle(order)
        paths, numbers = [paths[at] for at in order], [numbers[at] for at in order]
    held = int(share * len(paths))
    trained = slice(0, len(paths) - held) if share else slice(0, len(paths))
    parts = {"training": trained, "validation": slice(len(paths) - held, len(paths))}
    wanted = ["training", "validation"] if subset == "both" else [subset or "training"]
    made = []
    for name in wanted:
        chosen = parts[name]
        if verbose and share:
            print_message(f"Using {len(paths[chosen])} files for {name}.")
        tensors = _labels(numbers[chosen], label_mode, len(names or ())) if labelled else None
        data = Files(paths[chosen], tensors, read)
        loader = FileLoader(data, batch_size, shuffle, seed, None if batch_size is None else _collated)
        loader.class_names, loader.file_paths = names, data.paths
        made.append(loader)
    return tuple(made) if subset == "both" else made[0]


def _listed(
    root: Path, folders: Sequence[str], endings: tuple[str, ...], follow_links: bool
) -> tuple[list[str], list[int]]:
    paths: list[str] = []
    numbers: list[int] = []
    for number, folder in enumerate(folders):
        for inside, _, files in sorted(os.walk(root / folder, followlinks=follow_links)):
            found = [os.path.join(inside, file) for file in sorted(files) if file.lower().endswith(endings)]
            paths += found
            numbers += [number] * len(found)
    return paths, numbers


def _labels(numbers: Sequence[int], mode: str | None, classes: int) -> torch.Tensor:
    tensor = torch.tensor(numbers, dtype=torch.int32)
    if mode == "binary":
        return tensor.float().unsqueeze(-1)
    if mode == "categorical":
        return torch.nn.functional.one_hot(tensor.long(), classes).float()
    return tensor


def _collated(samples: list[Any]) -> Any:
    first = samples[0]
    if isinstance(first, str):
        return list(samples)
    if isinstance(first, tuple) and isinstance(first[0], str):
        return [text for text, _ in samples], torch.stack([label for _, label in samples])
    batch = default_collate(samples)
    return tuple(batch) if isinstance(batch, list) else batch


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "Pictures are read by Pillow, which is not installed; run `pip install 'oncue[preprocessing]'`."
        ) from error
    return Image, ImageOps
