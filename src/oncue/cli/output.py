"""What the commands print: words, tables and JSON, in which nothing from a file reaches the terminal as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from oncue.core.console import columns, is_terminal, visible, wrapped


def say(text: str) -> None:
    """Print lines, broken between words on a terminal."""
    print(wrapped("\n".join(visible(line) for line in text.splitlines())))


def complain(command: str, text: str) -> None:
    """Print an error, in one line, to where errors go."""
    print(visible(f"oncue {command}: {' '.join(text.split())}"), file=sys.stderr)


def say_json(content: Any) -> None:
    """Print JSON, in ASCII, which no terminal minds; what is not finite becomes a word."""
    from oncue.core.run_record import document_of

    print(json.dumps(json.loads(document_of(content)), indent=1))


def table(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """Print a table.

    Args:
        title: What stands above it; may be empty.
        names: The names of its columns.
        rows: Its rows.
        right: The columns of numbers.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(visible(title)) if title else None,
        title_justify="left",
        show_header=any(names),
        pad_edge=False,
    )
    for index, name in enumerate(names):
        made.add_column(Text(visible(name)), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(str(cell))) for cell in row))
    # A pipe gets whole lines.
    width = columns() if is_terminal() else 10_000
    Console(file=sys.stdout, width=width, highlight=False).print(made, soft_wrap=False)
