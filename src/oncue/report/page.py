"""One HTML file that tells a run, or several: nothing in it is fetched from anywhere, and no text of a run is code there."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oncue.core.console import visible
from oncue.core.run_record import RunRecord
from oncue.report.bundle import vega
from oncue.report.charts import KINDS, MOST_WEIGHTS, Chart, costs, curves, of_weights
from oncue.report.findings import findings
from oncue.report.run import Run

_MOST_OPERATIONS = 10
_MOST_DECISIONS = 300
_MOST_WEIGHTS = 1000
_LONGEST = 2000
_DRAW = """
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const specs = JSON.parse(document.getElementById("specs").textContent);
for (const [id, spec] of Object.entries(specs)) {
  vegaEmbed(document.getElementById(id), spec, {mode: "vega-lite", renderer: "svg", actions: false,
    tooltip: {theme: dark ? "dark" : "light"}})
    .catch(error => { document.getElementById(id).textContent = String(error); throw error; });
}
"""
_FOLLOW = """
setInterval(async () => {
  const now = await (await fetch("/version")).text();
  if (now !== document.body.dataset.version) location.reload();
}, 2000);
"""
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9dbe0; --back: #ffffff; --card: #f6f7f9;
  --bad: #b42318; --warn: #93590a; --good: #18794e; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a0a4ab; --line: #3a3d42; --back: #111214;
  --card: #1a1c1f; --bad: #ff8f84; --warn: #f5b94f; --good: #5ad19a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 1180px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
header { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline; }
.soft { color: var(--soft); } .small { font-size: .85rem; }
.state { border: 1px solid currentColor; border-radius: 1rem; padding: 0 .7rem; font-size: .85rem; }
.finished, .asked { color: var(--good); } .failed, .killed { color: var(--bad); }
.interrupted, .preempted, .running, .unknown { color: var(--warn); }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.numbers div { background: var(--card); border-radius: .5rem; padding: .5rem .9rem; min-width: 7rem; }
.numbers b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.story p { margin: .25rem 0; } .story .more { padding-left: 1.2rem; color: var(--soft); }
.finding { border-left: 4px solid var(--warn); background: var(--card); padding: .5rem .9rem; margin: .5rem 0;
  border-radius: 0 .4rem .4rem 0; }
.finding.not_finite { border-color: var(--bad); } .finding.validation { border-color: var(--good); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1rem; }
.charts.wide { display: block; max-width: 800px; }
figure { margin: 0; min-width: 0; break-inside: avoid; } figcaption { font-weight: 600; }
.chart { width: 100%; } .chart svg { max-width: 100%; } .chart svg text { fill: var(--ink) !important; }
.chart svg .role-axis-grid line { stroke: var(--line) !important; }
.chart svg .role-axis-domain line, .chart svg .role-axis-tick line { stroke: var(--soft) !important; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; color: var(--soft); margin: .3rem 0 .8rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .35rem;
  vertical-align: -1px; }
.scroll table { border-collapse: collapse; width: 100%; font-size: .9rem; }
.scroll th, .scroll td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.scroll td.number, .scroll th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; } .scroll td, .scroll th { overflow-wrap: normal; }
pre { background: var(--card); padding: .7rem; border-radius: .4rem; overflow-x: auto; font-size: .78rem; line-height: 1.3;
  overflow-wrap: normal; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --back: #fff; --card: #f4f4f4; } body { padding: 0; }
  h2 { break-after: avoid; } pre { white-space: pre-wrap; } }
"""


def page(run: Run, version: str | None = None, states: Mapping[str, str] | None = None) -> str:
    """Return the page of a run.

    Args:
        run: The run.
        states: What is known of the run's files, by their names in its folder: whether they are sound.
        version: What it was made of, for a page that is served: it loads itself again when that has changed.

    Raises:
        ImportError: Without the package that has Vega, with the name of the extra that brings it.
    """
    record = run.record
    drawn, left_out = curves(record)
    cost = costs(record)
    weights = of_weights(record)
    charts = [*drawn, *weights, *([] if cost is None else [cost])]
    parts = [
        _head(run),
        _numbers(run),
        '<h2>What happened</h2><div class="story">',
        *(_sentence(line) for line in record.explain().splitlines()),
        "</div>",
    ]
    for found in findings(run):
        parts.append(
            f'<div class="finding {found.kind}"><b>{_escaped(found.title)}</b><br>{_escaped(found.text)}</div>'
        )
    if drawn:
        parts += ["<h2>Curves</h2>", _key(), _figures(drawn)]
    if left_out:
        parts.append(f'<p class="soft">{left_out:,} more logged values are left out.</p>')
    parts += _weights(record, weights, start=len(drawn))
    if cost is not None:
        parts += ["<h2>What callbacks cost</h2>", _figures([cost], start=len(charts) - 1, wide=True)]
    parts += _operations(run)
    parts += _decisions(run)
    parts += _documents(run, states or {})
    return _document(run.name, "\n".join(parts), charts, version)


def comparison(title: str, rows: str, charts: Sequence[Chart]) -> str:
    """Return a page of tables and charts that compare runs.

    Args:
        title: Its title.
        rows: Its body before the charts, as HTML.
        charts: The charts.
    """
    body = f"<header><h1>{_escaped(title)}</h1></header>\n{rows}\n<h2>Curves</h2>\n{_figures(charts)}"
    return _document(title, body, charts, None)


def as_table(names: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    r"""Return a table as HTML.

    Args:
        names: The names of its columns.
        rows: Its rows.
        numbers: The columns that hold numbers.

    Example:
        >>> as_table(["a"], [["<"]])
        '<div class="scroll"><table><tr><th>a</th></tr>\n<tr><td>&lt;</td></tr></table></div>'
    """
    kind = {index: ' class="number"' for index in numbers}
    head = "".join(f"<th{kind.get(index, '')}>{_escaped(name)}</th>" for index, name in enumerate(names))
    body = [
        "".join(f"<td{kind.get(index, '')}>{_escaped(cell)}</td>" for index, cell in enumerate(row)) for row in rows
    ]
    lines = "\n".join(f"<tr>{row}</tr>" for row in [head, *body])
    return f'<div class="scroll"><table>{lines}</table></div>'


def _document(title: str, body: str, charts: Sequence[Chart], version: str | None) -> str:
    specs = {f"chart{index}": chart.spec for index, chart in enumerate(charts)}
    # In a script of data nothing ends it but "</", and JSON can have that in other words.
    data = json.dumps(specs, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    scripts = [*([vega(), _DRAW] if charts else []), *([] if version is None else [_FOLLOW])]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    own = "'none'" if version is None else "'self'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes} 'unsafe-eval'; "
        f"connect-src {own}; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_escaped(title)}</title>",
            f'<style>{_STYLE}</style></head><body data-version="{_escaped(version or "")}">',
            body,
            f'<script type="application/json" id="specs">{data}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>",
        ]
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _escaped(value: Any) -> str:
    return html.escape(visible(str(value)))


def _breakable(name: str) -> str:
    """Return a name that a narrow page breaks after its slashes and underscores."""
    return re.sub("([/_])", r"\1<wbr>", _escaped(name))


def _head(run: Run) -> str:
    record = run.record
    state = {"asked": "stopped", "unknown": "end not known"}.get(record.ending.how, record.ending.how)
    when = "" if record.began is None else f"begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(record.began))}"
    again = f", resumed {record.parts - 1} times" if record.parts > 2 else ", resumed once" if record.parts == 2 else ""
    return (
        f'<header><h1>{_escaped(run.name)}</h1><span class="state {record.ending.how}">{state}</span>'
        f'<span class="soft small">{_escaped(when + again)}</span></header>'
    )


def _numbers(run: Run) -> str:
    record = run.record
    shown: list[tuple[str, str]] = [("epochs", f"{len(record.epochs):,}")]
    if record.ending.planned:
        shown[0] = ("epochs", f"{len(record.epochs):,} of {record.ending.planned:,}")
    if record.seconds:
        shown.append(("time", _duration(record.seconds)))
    if record.epochs and record.seconds:
        shown.append(("each epoch", _duration(record.seconds / len(record.epochs))))
    for name in ("loss", "val_loss", *(one for one in record.history if one not in ("loss", "val_loss"))):
        values = record.history.get(name)
        if values and len(shown) < 9:
            shown.append((name, f"{values[-1]:.4g}" if isinstance(values[-1], float) else str(values[-1])))
    cells = "".join(
        f'<div><span class="soft small">{_escaped(name)}</span><b>{_escaped(text)}</b></div>' for name, text in shown
    )
    return f'<div class="numbers">{cells}</div>'


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"


def _sentence(line: str) -> str:
    return f'<p class="more">{_escaped(line.strip())}</p>' if line.startswith(" ") else f"<p>{_escaped(line)}</p>"


def _key() -> str:
    lines = [("#4c78a8", "training"), ("#f58518", "validation"), ("#2ca02c", "best epoch (diamond)"), *KINDS.values()]
    marks = "".join(f'<span><i style="background:{colour}"></i>{words}</span>' for colour, words in lines)
    return f'<div class="legend">{marks}</div>'


def _figures(charts: Sequence[Chart], start: int = 0, wide: bool = False) -> str:
    parts = []
    for index, chart in enumerate(charts, start):
        note = f'<div class="soft small">{_escaped(chart.note)}</div>' if chart.note else ""
        caption = f"<figcaption>{_breakable(chart.name)}</figcaption>"
        parts.append(f'<figure>{caption}<div class="chart" id="chart{index}"></div>{note}</figure>')
    return f'<div class="charts{" wide" if wide else ""}">{"".join(parts)}</div>'


def _weights(record: RunRecord, charts: Sequence[Chart], start: int) -> list[str]:
    if not record.weights:
        return []
    told = "The line is the mean, the dark band a standard deviation to both sides, the light one the least and the greatest."
    if len(record.weights) > MOST_WEIGHTS:
        told += (
            f" Of {len(record.weights):,} weights the {MOST_WEIGHTS} are drawn whose standard deviation changed most, in "
            "proportion."
        )
    names = ["weight", "epoch", "mean", "std", "std at first", "zeros", "least", "greatest"]
    rows = []
    for name, noted in list(record.weights.items())[:_MOST_WEIGHTS]:
        first, last = noted[min(noted)], max(noted)
        mean, deviation, zeros, low, high = noted[last]
        numbers = [f"{value:.4g}" for value in (mean, deviation, first[1])]
        rows.append([name, last + 1, *numbers, f"{100 * zeros:.4g} %", f"{low:.4g}", f"{high:.4g}"])
    left = len(record.weights) - len(rows)
    more = f'<p class="soft">{left} more weights are left out.</p>' if left > 0 else ""
    return [
        f'<h2>Weights</h2><p class="soft small">{told}</p>',
        _figures(charts, start),
        f"<details {'open' if len(rows) <= 20 else ''}><summary>The last numbers of each ({len(record.weights):,})</summary>",
        as_table(names, rows, numbers=range(1, len(names))),
        more,
        "</details>",
    ]


def _operations(run: Run) -> list[str]:
    """What took the time of the batches that were profiled, the last ones of each callback."""
    profiles = {entry.callback: entry.data for entry in run.record.entries if entry.data and "operations" in entry.data}
    parts = []
    for data in profiles.values():
        listed = data["operations"] if isinstance(data["operations"], list) else []
        rows = [
            [str(one.get("name")), one["calls"], f"{one['milliseconds']:,.2f}", f"{one['share']:.1%}"]
            for one in listed[:_MOST_OPERATIONS]
            if isinstance(one, Mapping)
            and all(isinstance(one.get(name), (int, float)) for name in ("calls", "milliseconds", "share"))
        ]
        if rows:
            batches = f"batches {data.get('first')} to {data.get('last')}"
            parts += [
                f"<details open><summary>What took the time of {_escaped(batches)}</summary>",
                as_table(["operation", "calls", "ms", "share"], rows, numbers=(1, 2, 3)),
                "</details>",
            ]
    return parts


def _decisions(run: Run) -> list[str]:
    entries = run.record.entries
    if not entries:
        return []
    half = _MOST_DECISIONS // 2
    left = len(entries) - _MOST_DECISIONS
    shown = entries if left <= 0 else [*entries[:half], *entries[-half:]]
    rows = [
        [
            "" if entry.epoch is None else entry.epoch + 1,
            entry.callback,
            entry.kind.replace("_", " "),
            entry.text if len(entry.text) <= _LONGEST else f"{entry.text[:_LONGEST]} ...",
        ]
        for entry in shown
    ]
    more = f'<p class="soft">{left} decisions between these are left out.</p>' if left > 0 else ""
    return [
        f"<details {'open' if len(entries) <= 20 else ''}><summary>Decisions ({len(entries)})</summary>",
        as_table(["epoch", "callback", "kind", "what and why"], rows, numbers=(0,)),
        more,
        "</details>",
    ]


def _documents(run: Run, states: Mapping[str, str]) -> list[str]:
    parts = []
    if run.summary:
        parts.append(f"<details open><summary>Model</summary><pre>{html.escape(_lines(run.summary))}</pre></details>")
    config = run.documents.get("config")
    if isinstance(config, Mapping):
        rows = [(where, value) for where, value in flat(config) if value not in (None, {}, [])]
        parts.append(f"<details><summary>Configuration</summary>{as_table(['', ''], rows)}</details>")
    environment = run.documents.get("environment")
    if isinstance(environment, Mapping):
        parts.append(f"<details open><summary>Environment</summary>{as_table(['', ''], flat(environment))}</details>")
    if run.files:
        names = sorted({*run.files, *states})
        files = [(name, f"{run.files[name]:,}" if name in run.files else "", states.get(name, "")) for name in names]
        heads = ["file", "bytes", "state" if states else ""]
        parts.append(f"<details open><summary>Files</summary>{as_table(heads, files, numbers=(1,))}</details>")
    return parts


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines())


def flat(content: Any, where: str = "") -> list[tuple[str, Any]]:
    """Return nested dicts and lists as pairs of a path and a value.

    Example:
        >>> flat({"fit": {"epochs": 3}, "callbacks": [{"class": "History"}]})
        [('fit.epochs', 3), ('callbacks.0.class', 'History')]
    """
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping) or not content:
        return [(where, content)]
    return [pair for name, part in content.items() for pair in flat(part, f"{where}.{name}" if where else str(name))]
