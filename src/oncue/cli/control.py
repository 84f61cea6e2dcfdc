"""`oncue control`: speak to a run that goes on."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from oncue.cli.output import say, say_json
from oncue.core import commands


def control(options: Namespace) -> int:
    """Tell a run something."""
    command = commands.command_of(options.word, options.value)
    run = Path(options.run)
    inside = run / commands.FOLDER
    # A `Control` of its own may have any folder.
    folder = inside if inside.is_dir() else run
    name = commands.tell(folder, command)
    if options.json:
        say_json({"told": command, "file": str(folder / name)})
    else:
        said = options.word if options.value is None else f"{options.word} {options.value}"
        say(f"told {options.run}: {said}. Its journal says when that is done.")
    return 0
