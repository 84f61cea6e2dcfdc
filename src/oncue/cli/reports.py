"""`oncue report` and `compare`: pages to look at, and tables."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from oncue.cli.files import states_of
from oncue.cli.output import say, say_json, table
from oncue.core.files import replace_file
from oncue.report import compared, find_run
from oncue.report.findings import findings


def report(options: Namespace) -> int:
    """Write the page of a run, or serve it while the run goes on."""
    from oncue.report.page import page

    if options.watch:
        return _watch(options)
    run = find_run(options.run)
    content = page(run, states=states_of(run)).encode("utf-8")
    replace_file(options.output, content)
    found = findings(run)
    if options.json:
        say_json({"wrote": options.output, "bytes": len(content), "findings": [asdict(one) for one in found]})
        return 0
    for one in found:
        say(f"{one.title}: {one.text}")
    say(f"wrote {options.output}, {len(content) / 1e6:.1f} MB; it needs no network")
    return 0


def _watch(options: Namespace) -> int:
    from oncue.report.page import page
    from oncue.report.watch import Watch

    def version() -> str:
        path = find_run(options.run).record.path
        found = path.stat()
        return f"{found.st_mtime_ns}-{found.st_size}"

    # What is no run is said now, and not in the browser.
    page(find_run(options.run))
    watch = Watch(lambda version: page(find_run(options.run), version), version, options.port)
    if options.json:
        say_json({"url": watch.url})
    else:
        say(f"The report of {options.run} is at {watch.url} until Ctrl-C.")
    try:
        watch.serve()
    except KeyboardInterrupt:
        pass
    return 0


def compare(options: Namespace) -> int:
    """Print what differed in runs, and who was best; and write a page of it where that is asked for."""
    runs = compared.named([find_run(path) for path in options.run])
    monitor = compared.value_to_compare(runs, options.monitor)
    rows = compared.rows_of(runs, monitor, options.mode)
    differing = compared.what_differed(runs)
    if options.output is not None:
        replace_file(Path(options.output), compared.comparison_page(runs, monitor, options.mode).encode("utf-8"))
    if options.json:
        differed = {where: dict(zip(runs, values, strict=True)) for where, values in differing}
        say_json({"monitor": monitor, "runs": [asdict(row) for row in rows], "differed": differed})
        return 0
    table("", compared.heads(monitor), [compared.shown(row) for row in rows], right=range(2, 8))
    if differing:
        shown = [
            [where, *("" if value is None else str(value)[:80] for value in values)] for where, values in differing
        ]
        table("What differed", ["", *runs], shown[: options.most])
        if len(shown) > options.most:
            say(f"and {len(shown) - options.most} more; `--most` shows them")
    if options.output is not None:
        say(f"wrote {options.output}")
    return 0
