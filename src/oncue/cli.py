"""The command `oncue`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments after `oncue`; those of the process if None.

    Returns:
        0, or 1 if the file can't be used or is damaged.

    Example:
        >>> main(["plot", "missing.csv"])
        1
    """
    parser = argparse.ArgumentParser(prog="oncue", description="Tools for training runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    plot = commands.add_parser("plot", help="draw the curves of a file that CSVLogger wrote")
    plot.add_argument("file", help="the CSV file")
    plot.add_argument("-o", "--output", default="curves.png", help="the image to write (default: curves.png)")
    plot.add_argument("--separator", help="the character between two values (default: detected)")
    verify = commands.add_parser("verify", help="check the files of a ModelCheckpoint against its manifest")
    verify.add_argument("manifest", help="the manifest, <file name>.oncue.json, or the `filepath` of the callback")
    options = parser.parse_args(arguments)
    if options.command == "verify":
        return _verify(options.manifest)
    from oncue.plots import plot_csv

    try:
        plot_csv(options.file, options.separator).savefig(options.output)
    except (OSError, ValueError, ImportError) as error:
        print(f"oncue plot: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}")
    return 0


def _verify(path: str) -> int:
    from oncue.checkpoints import Checkpoints

    try:
        found = Checkpoints(path).verify()
    except (OSError, ValueError) as error:
        print(f"oncue verify: {error}", file=sys.stderr)
        return 1
    for name, sound in found.items():
        print(f"{'sound  ' if sound else 'DAMAGED'}  {name}")
    return 0 if all(found.values()) else 1
