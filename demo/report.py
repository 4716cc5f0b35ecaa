"""Owns the demo's report: one HTML file that needs no network, drawn from what the run measured."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
import matplotlib as mpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from demo.questions import Answer
    from lake.audit import Row, Sheet

__all__ = ["Question", "RunFacts", "render", "write_report"]

_INK, _PALE, _ACCENT, _WARM = "#1d2b3a", "#d9e2ec", "#2f7ebc", "#c8553d"
_SHOWN_ROWS = 12


@dataclass(frozen=True)
class Question:
    """A question, how it was asked, and what came back."""

    title: str
    asked_by: str
    sql: str
    answer: Answer
    seconds: float
    differences: tuple[str, ...]
    """Where the answer differs from pandas'; empty is right."""


@dataclass(frozen=True)
class RunFacts:
    """Everything the report shows."""

    title: str
    flights: pd.DataFrame
    stages: tuple[tuple[str, float], ...]
    """Name and seconds of each stage, in order."""
    sheet: Sheet
    questions: tuple[Question, ...]
    sizes: Mapping[str, tuple[list[int], list[int]]]
    """Bytes of each data file by tenant, before and after compaction."""
    objects: int
    """S3 objects that the batches took."""
    problems: tuple[str, ...]


def write_report(facts: RunFacts, path: Path) -> None:
    """Write the report; the folder is made if it isn't there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(facts), encoding="utf-8")


def render(facts: RunFacts) -> str:
    """The report as HTML; pictures are drawn into it."""
    # SVG ids are random otherwise, and the same run would give another file
    with mpl.rc_context({"svg.hashsalt": "lakehose", "font.size": 9, "axes.edgecolor": _INK, "text.color": _INK}):
        plots = {
            "hours": _svg(_events_by_hour(facts.flights)),
            "sizes": _svg(_file_sizes(facts.sizes)),
            "stages": _svg(_stage_times(facts.stages)),
        }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment.from_string(_PAGE).render(
        facts=facts,
        total=facts.sheet.total,
        rows=[*facts.sheet.rows, facts.sheet.total],
        columns=_sheet_columns(facts.sheet.total),
        plots=plots,
        flow=_flow(facts),
        shown=_SHOWN_ROWS,
        seconds=sum(seconds for _, seconds in facts.stages),
        files=[
            (tenant, len(before), sum(before), len(after), sum(after))
            for tenant, (before, after) in facts.sizes.items()
        ],
    )


def _sheet_columns(total: Row) -> list[str]:
    always = ["sent", "acknowledged", "dead_lettered", "refused", "delivered"]
    always += ["ingested", "duplicates", "quarantined", "difference"]
    sometimes = {"waiting", "in_flight", "redelivered", "unidentified"}
    order = [name for name in type(total).__dataclass_fields__ if name != "tenant"]
    return [name for name in order if name in always or (name in sometimes and getattr(total, name))]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - no pyplot: it keeps every figure it made

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]


def _events_by_hour(flights: pd.DataFrame) -> Figure:
    figure = _figure(7.5, 2.6)
    axes = figure.subplots()
    hours = range(24)
    bottom = [0] * 24
    colours = (_ACCENT, "#8fbbdd", _INK)
    for colour, (origin, own) in zip(colours, flights.groupby("origin"), strict=False):
        counts = own.groupby("hour").size().reindex(hours, fill_value=0).tolist()
        axes.bar(hours, counts, bottom=bottom, color=colour, label=str(origin))
        bottom = [low + high for low, high in zip(bottom, counts, strict=True)]
    axes.set(xlabel="scheduled hour of departure, local", ylabel="events", xticks=list(range(0, 24, 2)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    return _bare(figure)


def _file_sizes(sizes: Mapping[str, tuple[list[int], list[int]]]) -> Figure:
    figure = _figure(7.5, 2.6)
    axes = figure.subplots()
    for place, (before, after) in enumerate(sizes.values()):
        for offset, files, colour, label in ((-0.17, before, _WARM, "before"), (0.17, after, _ACCENT, "after")):
            kib = sorted(one / 1024 for one in files)
            # spread sideways, so that files of one size don't hide each other
            spread = [place + offset + 0.24 * ((n + 0.5) / len(kib) - 0.5) for n in range(len(kib))]
            axes.scatter(spread, kib, s=9, color=colour, label=f"{label} compaction" if place == 0 else None)
    top = 1.1 * max((one / 1024 for pair in sizes.values() for files in pair for one in files), default=1)
    axes.set(ylabel="data file, KiB", ylim=(0, top), xticks=range(len(sizes)), xticklabels=list(sizes))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    return _bare(figure)


def _stage_times(stages: tuple[tuple[str, float], ...]) -> Figure:
    figure = _figure(7.5, 0.32 * len(stages) + 0.5)
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in stages], [seconds for _, seconds in stages], color=_ACCENT)
    axes.bar_label(bars, fmt=" %.1f s")
    axes.invert_yaxis()
    axes.set(xlabel="seconds", xmargin=0.12)
    return _bare(figure)


def _bare(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True)
class _Box:
    x: int
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Arrow:
    x: int
    label: str


@dataclass(frozen=True)
class _Exit:
    x: int
    label: str


@dataclass(frozen=True)
class _Flow:
    boxes: tuple[_Box, ...]
    arrows: tuple[_Arrow, ...]
    exits: tuple[_Exit, ...]
    width: int


def _flow(facts: RunFacts) -> _Flow:
    total = facts.sheet.total
    before = sum(len(files) for files, _ in facts.sizes.values())
    after = sum(len(files) for _, files in facts.sizes.values())
    step, box = 250, 140
    titles = (
        ("producers", ("three sites,", "durable spools")),
        ("Firehose", ("keys by jq, gzip,", "a log before every ack")),
        ("S3", (f"{facts.objects:,} objects", "by tenant and day")),
        ("ingest", ("Spark, numbered", "batches")),
        ("Iceberg", (f"{before:,} files,", f"compacted to {after:,}")),
    )
    boxes = tuple(_Box(index * step, title, lines) for index, (title, lines) in enumerate(titles))
    labels = (f"{total.acknowledged:,}", f"{total.delivered:,}", f"{total.delivered:,}", f"{total.ingested:,}")
    arrows = tuple(_Arrow(index * step + box, label) for index, label in enumerate(labels))
    exits = (
        _Exit(0, f"{total.dead_lettered:,} too large: dead letter"),
        _Exit(step, f"{total.refused:,} refused: error objects"),
        _Exit(3 * step, f"{total.duplicates:,} duplicates, {total.quarantined:,} quarantined"),
    )
    return _Flow(boxes, arrows, exits, 4 * step + box)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ facts.title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1d2b3a; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
  table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums }
  th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #d9e2ec }
  th:first-child, td:first-child, td.text { text-align: left }
  tr:last-child.total td { font-weight: 600; border-top: 2px solid #1d2b3a }
  pre { background: #f4f7fa; padding: .6rem .8rem; white-space: pre-wrap; font-size: 12.5px }
  .good { color: #21794a; font-weight: 600 } .bad { color: #b3261e; font-weight: 600 }
  .plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots svg, .flow svg { max-width: 100%; height: auto }
  small { color: #5b6b7b }
</style>
</head>
<body>
<h1>{{ facts.title }}</h1>
<p class="{{ 'bad' if facts.problems else 'good' }}">
{% if facts.problems %}{{ facts.problems | length }} problem(s){% else %}Every record is accounted for, and every answer
equals the same question asked of the source data.{% endif %}</p>
{% for problem in facts.problems %}<p class="bad">{{ problem }}</p>
{% endfor %}

<h2>The road</h2>
<div class="flow">
<svg viewBox="0 -20 {{ flow.width + 4 }} 190" width="{{ flow.width }}" role="img" aria-label="flow of records">
<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">
<path d="M0 0 8 4 0 8z" fill="#2f7ebc"/></marker></defs>
{% for box in flow.boxes %}
<rect x="{{ box.x + 1 }}" y="0" width="138" height="84" rx="8" fill="#f4f7fa" stroke="#1d2b3a"/>
<text x="{{ box.x + 70 }}" y="26" text-anchor="middle" font-weight="600">{{ box.title }}</text>
{% for line in box.lines %}
<text x="{{ box.x + 70 }}" y="{{ 48 + 18 * loop.index0 }}" text-anchor="middle" font-size="11">{{ line }}</text>
{% endfor %}
{% endfor %}
{% for arrow in flow.arrows %}
<line x1="{{ arrow.x + 2 }}" y1="42" x2="{{ arrow.x + 108 }}" y2="42" stroke="#2f7ebc" stroke-width="3"
 marker-end="url(#tip)"/>
<text x="{{ arrow.x + 54 }}" y="32" text-anchor="middle" font-size="13">{{ arrow.label }}</text>
{% endfor %}
{% for exit in flow.exits %}
<line x1="{{ exit.x + 70 }}" y1="86" x2="{{ exit.x + 70 }}" y2="126" stroke="#c8553d" stroke-width="2"/>
<text x="{{ exit.x + 4 }}" y="146" font-size="12" fill="#c8553d">{{ exit.label }}</text>
{% endfor %}
</svg>
</div>

<h2>The balance sheet</h2>
<table>
<tr><th>tenant</th>{% for name in columns %}<th>{{ name | replace('_', ' ') }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr{% if loop.last %} class="total"{% endif %}><td>{{ row.tenant }}</td>
{% for name in columns %}<td>{{ row[name] | number }}</td>{% endfor %}</tr>
{% endfor %}
</table>

<h2>Questions asked in Athena SQL</h2>
{% for question in facts.questions %}
<h3>{{ question.title }} <small>by {{ question.asked_by }}, {{ '%.2f' | format(question.seconds) }} s;
{% if question.differences %}<span class="bad">differs from pandas</span>{% else %}
<span class="good">equals pandas</span>{% endif %}</small></h3>
<pre>{{ question.sql }}</pre>
<table>
<tr>{% for name in question.answer.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in question.answer.rows[:shown] %}
<tr>{% for cell in row %}<td>{{ '' if cell is none else cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% if question.answer.rows | length > shown %}<small>the first {{ shown }} of {{ question.answer.rows | length }}
rows</small>{% endif %}
{% endfor %}

<h2>Compaction</h2>
<table>
<tr><th>tenant</th><th>files before</th><th>bytes before</th><th>files after</th><th>bytes after</th></tr>
{% for tenant, count_before, bytes_before, count_after, bytes_after in files %}
<tr><td>{{ tenant }}</td><td>{{ count_before | number }}</td><td>{{ bytes_before | number }}</td>
<td>{{ count_after | number }}</td><td>{{ bytes_after | number }}</td></tr>
{% endfor %}
</table>
<div class="plots">{{ plots.sizes | safe }}</div>

<h2>Events by hour</h2>
<div class="plots">{{ plots.hours | safe }}</div>

<h2>Times</h2>
<p>{{ '%.0f' | format(seconds) }} seconds in all.</p>
<div class="plots">{{ plots.stages | safe }}</div>
</body>
</html>
"""
