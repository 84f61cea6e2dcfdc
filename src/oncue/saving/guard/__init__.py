"""Safe reading of model files: every entry point reads through these functions.

A file is data. It can't name classes to import, contain pickles, point to other files, or take much more memory than its
size on disk. Anything else raises a ValueError that names the file and the broken rule.
"""

from oncue.saving.guard.archive import read_archive
from oncue.saving.guard.basics import (
    MAX_ENTRIES,
    MissingFileError,
    check_entry,
    check_lambda,
    check_layers,
    opened,
    printable,
    read_json,
    refuse,
)
from oncue.saving.guard.checksum import CHANGED, trailer
from oncue.saving.guard.hdf5 import (
    Arrays,
    count_of_numbers,
    dataset_at,
    group_at,
    opened_hdf5,
    paths_of_arrays,
    read_array,
)
from oncue.saving.guard.safetensors import opened_tensors

__all__ = [
    "CHANGED",
    "MAX_ENTRIES",
    "Arrays",
    "MissingFileError",
    "check_entry",
    "check_lambda",
    "check_layers",
    "count_of_numbers",
    "dataset_at",
    "group_at",
    "opened",
    "opened_hdf5",
    "opened_tensors",
    "paths_of_arrays",
    "printable",
    "read_archive",
    "read_array",
    "read_json",
    "refuse",
    "trailer",
]
