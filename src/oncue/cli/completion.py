"""`oncue completion`: a script for shells, made by shtab from the parser."""

from __future__ import annotations

import argparse

from oncue.cli.output import say_json

_FILES = ("run", "path", "one", "other", "output")


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    import shtab

    from oncue.cli import parser

    made = parser()
    for action in _actions(made):
        if action.dest in _FILES:
            # What shtab reads of an argument.
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script = shtab.complete(made, options.shell)
    if options.json:
        say_json({"shell": options.shell, "script": script})
    else:
        print(script)
    return 0


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            found += [part for command in action.choices.values() for part in _actions(command)]
    return found
