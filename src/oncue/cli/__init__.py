"""The command `oncue`. Each command is imported when it is run."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from oncue.cli.output import complain, say_json
from oncue.core.commands import WORDS

EXIT_NO, EXIT_CANT, EXIT_INTERRUPTED = 1, 2, 130
"""What it exits with: 0 when all is well; these when the answer is no, when there is none, and after Ctrl-C."""

_ENDINGS = """exit status:
  0  all is well
  1  a file is damaged, two differ, or a name is missing
  2  the command can't answer: a file is missing or isn't what it should be, or the arguments are wrong"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments after `oncue`; those of the process if None.

    Returns:
        0; 1 if a file is damaged, two differ, or a name is missing; 2 if a command can't answer.

    Example:
        >>> main(["plot", "missing.csv"])
        2
    """
    options = parser().parse_args(arguments)
    module, name = options.run_command
    try:
        command = getattr(importlib.import_module(f"oncue.cli.{module}"), name)
        status: int = command(options)
        sys.stdout.flush()
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader, such as `head`, has seen enough. Python flushes stdout once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if options.json:
            say_json({"error": str(error)})
        complain(options.command, str(error))
        return EXIT_CANT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser(
        prog="oncue",
        description="Looks at training runs and at the files that they leave. Nothing in a file is ever run.",
        epilog=_ENDINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=_Version)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, module: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, epilog=_ENDINGS, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        command.set_defaults(run_command=(module, name))
        return command

    explain = add("explain", "runs", "say how a run ended, what was decided in it and what it cost")
    _run(explain)
    tail = add("tail", "runs", "show the last epochs and decisions of a run")
    _run(tail)
    tail.add_argument("-n", "--lines", type=int, default=10, metavar="N", help="how many (default: 10)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with those that come, until the run ends")
    tail.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="how often to look (default: 1)")
    report = add("report", "reports", "write a page that tells a run, in one file that needs no network")
    _run(report)
    report.add_argument("-o", "--output", default="report.html", metavar="FILE", help="the page (default: report.html)")
    report.add_argument("-w", "--watch", action="store_true", help="serve it on this machine while the run goes on")
    report.add_argument("--port", type=int, default=0, help="where to serve it (default: any port that is free)")
    compare = add("compare", "reports", "compare runs: what differed, and who was best when at what cost")
    compare.add_argument("run", nargs="+", metavar="RUN", help="the folders of runs, or their files")
    compare.add_argument("-m", "--monitor", metavar="NAME", help="the value to compare by (default: val_loss, or loss)")
    compare.add_argument("--mode", choices=("auto", "min", "max"), default="auto", help="which way it gets better")
    compare.add_argument(
        "-o", "--output", metavar="FILE", help="also write a page of it, with the curves over each other"
    )
    compare.add_argument(
        "--most", type=int, default=40, metavar="N", help="how many differences to print (default: 40)"
    )
    inspect = add("inspect", "files", "say what a file, a backup or a run is, and what is in it")
    inspect.add_argument("path", metavar="FILE|RUN", help="a model, weights, a state, a manifest, a backup or a run")
    verify = add("verify", "files", "check that files are what was saved")
    verify.add_argument(
        "path", nargs="+", metavar="FILE|RUN", help="files, folders, or the `filepath` of a ModelCheckpoint with `keep`"
    )
    diff = add("diff", "files", "say in what two files, or two runs, differ")
    diff.add_argument("one", metavar="A", help="a model, weights, or the folder of a run")
    diff.add_argument("other", metavar="B", help="another")
    control = add("control", "control", "speak to a run that goes on: stop, save, pause, go, rate 1e-4, rate x0.5")
    control.add_argument("run", metavar="RUN", help="the folder of a run that listens")
    control.add_argument("word", metavar="WORD", choices=WORDS, help=f"one of {', '.join(WORDS)}")
    control.add_argument("value", metavar="VALUE", nargs="?", help="for rate: a number, or a factor such as x0.5")
    fork = add("fork", "fork", "begin a new run from a state that another has kept, which isn't touched")
    fork.add_argument("run", metavar="RUN", help="the folder of a run with `resume=True`, or of a BackupAndRestore")
    fork.add_argument(
        "--epoch",
        type=_count,
        required=True,
        metavar="N",
        help="after how many epochs, counted from 1 as in the progress",
    )
    fork.add_argument("new", metavar="NEW", help="the folder of the new run, which isn't there yet")
    plot = add("plot", "runs", "draw the curves of a run, or of a file that CSVLogger wrote")
    _run(plot)
    plot.add_argument("-o", "--output", default="curves.png", help="the image to write (default: curves.png)")
    plot.add_argument("--separator", help="the character between two values of a CSV file (default: detected)")
    check = add("check", "scripts", "list the names of Keras and TensorFlow in a script, and what becomes of each")
    check.add_argument(
        "path", metavar="SCRIPT|FOLDER", help="a script or a notebook, which is not run; or a folder of them"
    )
    completion = add("completion", "completion", "print a script that completes commands, options and files in a shell")
    completion.add_argument(
        "shell", choices=("bash", "zsh", "tcsh"), help="for example: oncue completion bash >> ~/.bashrc"
    )
    return made


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of epochs, 1 or more")
    return int(text)


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", metavar="RUN", help="the folder of a run, its journal.jsonl, or the CSV file of a CSVLogger"
    )


class _Version(argparse.Action):
    """Prints the version; torch's and Keras's are asked for only then."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version of oncue, and of what it works with")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata
        import platform

        from oncue.core.version import __version__

        found = [f"oncue {__version__}", f"Python {platform.python_version()}"]
        for name in ("torch", "keras"):
            try:
                found.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                continue
        print(", ".join(found))
        parser.exit()
