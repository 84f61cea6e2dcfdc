"""The data helpers of Keras 1 and 2."""

from __future__ import annotations

from oncue.legacy.words import KERAS_1, KERAS_2, Old, since

_HOME = "oncue.legacy.preprocessing"
_IMAGE, _SEQUENCE, _TEXT = (f"oncue.preprocessing.{part}" for part in ("image", "sequence", "text"))
_FOLDERS = "oncue.utils.image_dataset_from_directory` and layers such as `oncue.layers.RandomFlip"
_ENCODED = "oncue.layers.TextVectorization"

PREPROCESSING: dict[str, Old] = {
    **since(
        KERAS_1,
        {
            f"{_IMAGE}.DirectoryIterator": "oncue.utils.image_dataset_from_directory",
            f"{_IMAGE}.ImageDataGenerator": _FOLDERS,
            f"{_IMAGE}.Iterator": "oncue.utils.PyDataset",
            f"{_IMAGE}.NumpyArrayIterator": "oncue.utils.PyDataset",
            f"{_IMAGE}.random_channel_shift": "oncue.layers.RandomBrightness",
            f"{_IMAGE}.random_rotation": "oncue.layers.RandomRotation",
            f"{_IMAGE}.random_shear": "oncue.layers.RandomShear",
            f"{_IMAGE}.random_shift": "oncue.layers.RandomTranslation",
            f"{_IMAGE}.random_zoom": "oncue.layers.RandomZoom",
            f"{_SEQUENCE}.make_sampling_table": None,
            f"{_SEQUENCE}.skipgrams": None,
            f"{_TEXT}.Tokenizer": _ENCODED,
            f"{_TEXT}.one_hot": "oncue.layers.Hashing",
            f"{_TEXT}.text_to_word_sequence": _ENCODED,
        },
        _HOME,
    ),
    **since(
        KERAS_2,
        {
            f"{_IMAGE}.apply_affine_transform": "scipy.ndimage.affine_transform",
            f"{_IMAGE}.apply_brightness_shift": "oncue.layers.RandomBrightness",
            f"{_IMAGE}.apply_channel_shift": "oncue.layers.RandomBrightness",
            f"{_IMAGE}.random_brightness": "oncue.layers.RandomBrightness",
            f"{_SEQUENCE}.TimeseriesGenerator": "oncue.utils.timeseries_dataset_from_array",
            f"{_TEXT}.hashing_trick": "oncue.layers.Hashing",
            f"{_TEXT}.tokenizer_from_json": _ENCODED,
        },
        _HOME,
    ),
}
"""From a helper to what does its work today; the helpers are those that Keras 3 keeps for such code."""
