"""What all campaigns come to, as one line at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from crash.share import Counted


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Counted:
    """Return a function that counts what was done to runs and saves, for the line at the end."""

    def count(**done: int) -> None:
        for what, number in done.items():
            record_property(what, number)

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    done, differences = Counter[str](), 0
    for kind in ("passed", "failed"):
        for report in terminalreporter.stats.get(kind, []):
            found = dict(report.user_properties)
            # What fails for another reason differs, too.
            differences += max(found.pop("differences", 0), int(kind == "failed"))
            done.update({what.replace("_", " "): number for what, number in found.items()})
    if done:
        counts = ", ".join(f"{number} {what}" for what, number in done.items())
        terminalreporter.write_line(f"crash: {counts}; {differences} differences")
