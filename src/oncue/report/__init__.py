"""What a run left, read again: its account in words, its curves, one page of HTML, and several runs beside each other."""

from oncue.report.run import Run, find_run

__all__ = ["Run", "find_run"]
