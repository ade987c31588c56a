"""A report from a study directory: what it says, and the files that say it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.errors import ConfigError
from inlay.files import write_atomically, write_text
from inlay.study.report import heatmap, plots
from inlay.study.report.analysis import Analysis, analyse, exploratory
from inlay.study.report.contents import tables
from inlay.study.report.drawing import to_png, to_svg
from inlay.study.report.facts import Facts, metrics_of, read_facts
from inlay.study.report.selection import leave_out
from inlay.study.report.settings_table import Setting, settings_of
from inlay.study.report.summary import Sentence, summarise
from inlay.study.report.tables import Table, make_table, to_csv, to_latex, to_markdown
from inlay.study.report.tuning import tuning_table
from inlay.study.report.words import COSTS
from inlay.study.table import Row, load_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report"
"""The folder of a study directory that reports are written to."""
PAGE, MARKDOWN, NUMBERS = "index.html", "report.md", "report.json"


@dataclass(frozen=True)
class Picture:
    """A drawing, as a page and as a file have it."""

    name: str
    title: str
    says: str
    png: bytes
    svg: str


@dataclass(frozen=True, eq=False)
class Part:
    """All about one metric."""

    analysis: Analysis
    settings: tuple[Setting, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that a report says."""

    facts: Facts
    rows: tuple[Row, ...]
    summary: tuple[Sentence, ...]
    parts: tuple[Part, ...]
    tuning: Table | None
    failures: Table
    cells: Table


def make_report(
    rows: Sequence[Row],
    facts: Facts,
    metric: str | None = None,
    draws: int = 9999,
    without: Sequence[str] = (),
    tried: Sequence[Row] = (),
) -> Report:
    """Return what a study's rows say.

    Args:
        rows: in any order: the report is the same.
        facts: of the study.
        metric: what it is judged by; by default the first that the study names.
        draws: permutations a test.
        without: levels to leave out, see :func:`leave_out`.
        tried: the runs that found the tuned setting, of which those that failed are shown.

    Raises:
        ConfigError: there are no rows, none has the metric, or there is no such level.
    """
    if not rows:
        raise ConfigError("the study has no cells")
    kept, said = leave_out(rows, without)
    rows = sorted(kept, key=_order)
    names = metrics_of(rows, facts, metric)
    analyses = [analyse(rows, name, facts, draws) for name in names]
    explored = exploratory(analyses)
    parts = []
    for analysis in analyses:
        settings = settings_of(rows, analysis)
        made = tables(rows, analysis, settings, explored)
        parts.append(Part(analysis, tuple(settings), tuple(made), tuple(_pictures(rows, analysis, settings))))
    summary = summarise(rows, analyses, parts[0].settings if parts else ())
    summary += [Sentence("caution", said)] if said else []
    return Report(
        facts,
        tuple(rows),
        tuple(summary),
        tuple(parts),
        tuning_table(facts.tuned),
        _failures([*(row for row in tried if row.status != "done"), *rows], names),
        _cells(rows, names),
    )


def _order(row: Row) -> tuple[str, ...]:
    seed = "" if row.seed is None else f"{row.seed:020d}"
    return (*(str(level) for level in row.factors.values()), row.task or "", seed, row.cell)


def write_report(
    directory: Path,
    rows: Sequence[Row],
    out: Path | None = None,
    metric: str | None = None,
    draws: int = 9999,
    without: Sequence[str] = (),
) -> tuple[Report, Path]:
    """Write a report of a study directory; return it and its folder.

    Files of an earlier report are replaced, nothing else is touched. The same rows give the same bytes.

    Args:
        directory: of the study; pictures of samples are read there.
        rows: of the study.
        out: the folder; by default `report` in the study directory.
        metric: what it is judged by.
        draws: permutations a test.
        without: levels to leave out.

    Raises:
        ConfigError: see `make_report`.
        ArtifactError: the folder cannot be written.
    """
    from inlay.study.report.page import render
    from inlay.study.report.samples import samples

    facts = read_facts(directory)
    tried = load_table(directory, "tuning") if facts.tuned else []
    report = make_report(rows, facts, metric, draws, without, tried)
    folder = out or directory / REPORT
    shown = (
        samples(directory, report.rows, report.parts[0].settings, report.parts[0].analysis.metric)
        if report.parts
        else []
    )
    write_text(folder / PAGE, render(report, shown))
    write_text(folder / MARKDOWN, to_text(report))
    write_text(folder / NUMBERS, json.dumps(to_json(report), indent=1, allow_nan=False) + "\n")
    for table in every_table(report):
        write_text(folder / "tables" / f"{_file(table.name)}.csv", to_csv(table))
        write_text(folder / "tables" / f"{_file(table.name)}.tex", to_latex(table))
    for part in report.parts:
        for picture in part.pictures:
            write_atomically(
                folder / "pictures" / f"{_file(picture.name)}.png",
                lambda place, data=picture.png: place.write_bytes(data),
            )
    return report, folder


def every_table(report: Report) -> list[Table]:
    """Return all tables of a report."""
    found = [table for part in report.parts for table in part.tables]
    return [*found, *([] if report.tuning is None else [report.tuning]), report.failures, report.cells]


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _pictures(rows: Sequence[Row], analysis: Analysis, settings: Sequence[Setting]) -> list[Picture]:
    found: list[Picture] = []

    def add(name: str, title: str, says: str, figure: Figure | None) -> None:
        if figure is not None:
            full = f"{name}-{analysis.metric}"
            found.append(Picture(full, title, says, to_png(figure), to_svg(figure, _file(full))))

    metric = analysis.metric
    positions = heatmap.find_positions(rows)
    if positions is not None:
        says = "Means over everything else; the best pair is framed. An asterisk: some of its cells failed."
        figure = heatmap.position_heatmap(rows, metric, positions, analysis.higher)
        add("positions", "Where the adapter reads and where it writes", says, figure)
        for name in heatmap.other_factors(rows, positions):
            figure = heatmap.position_heatmap(rows, metric, positions, analysis.higher, name)
            add(f"positions-{name}", f"The same for each {name}", "One scale of colours for all.", figure)
    for factor in analysis.ranked:
        says = "Bars: means over the levels of all else, with 95 % intervals. Dots: runs, freed of what all else does."
        if factor.alone:
            says = "Bars: means without regard to the other factors, with 95 % intervals. Dots: single runs."
        elif any(mean.value is None for mean in factor.means):
            says += " Without a bar: empty cells leave the mean undetermined."
        title = f"What {'each' if factor is analysis.overall else 'the'} {factor.name} does"
        add(f"effect-{factor.name}", title, says, plots.effects(analysis, factor))
    for term in plots.shown_interactions(analysis):
        if positions is not None and set(term) == {positions.input, positions.output}:
            continue  # the heatmap shows it
        says = "Parallel lines: the factors add up. Crossing lines: which is best depends on the other."
        add(f"interaction-{'-'.join(term)}", " and ".join(term), says, plots.interaction(analysis, term))
    for cost in ("training_seconds", "trainable_parameters", "peak_bytes", "result_bytes"):
        says = "Blue, dotted line: nothing is better at the same cost. Bars: 95 % intervals of means."
        figure = plots.quality_against_cost(analysis, settings, cost)
        add(f"cost-{cost}", f"Quality against {COSTS[cost]}", says, figure)
    add("residuals", "What the model leaves unexplained", "", plots.residuals(analysis))
    return found


def _failures(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    factors = list(dict.fromkeys(name for row in rows for name in row.factors))
    broken = [row for row in rows if row.status != "done" or any(row.metrics.get(metric) is None for metric in metrics)]
    return make_table(
        "failures",
        "Cells without a result, or with a part of one",
        ["cell", *factors, "task", "seed", "status", "reason"],
        [
            [
                row.cell,
                *(_text(row.factors.get(name)) for name in factors),
                row.task,
                _text(row.seed),
                row.status,
                row.reason or ("not run yet" if row.status == "missing" else None),
            ]
            for row in broken
        ],
    )


def _cells(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    factors = list(dict.fromkeys(name for row in rows for name in row.factors))
    costs = list(dict.fromkeys(name for row in rows for name in row.costs))
    return make_table(
        "cells",
        "All cells",
        ["cell", *factors, "task", "seed", "status", *((name, "number") for name in [*metrics, *costs])],
        [
            [
                row.cell,
                *(_text(row.factors.get(name)) for name in factors),
                row.task,
                _text(row.seed),
                row.status,
                *(row.metrics.get(name) for name in metrics),
                *(row.costs.get(name) for name in costs),
            ]
            for row in rows
        ],
    )


def _text(level: object) -> str | None:
    return None if level is None else str(level)


def to_text(report: Report) -> str:
    """Return the report as Markdown."""
    heads = {
        "supported": "What the data support",
        "open": "What they do not decide",
        "caution": "What to bear in mind",
    }
    lines = [f"# {report.facts.title or 'Study'}", ""]
    for kind, head in heads.items():
        said = [f"- {sentence.text}" for sentence in report.summary if sentence.kind == kind]
        lines += [f"## {head}", "", *said, ""] if said else []
    for part in report.parts:
        lines += [f"## {part.analysis.metric}", ""]
        for picture in part.pictures:
            lines += [f"![{picture.title}](pictures/{_file(picture.name)}.png)", ""]
            lines += [picture.says, ""] if picture.says else []
        lines += [to_markdown(table) for table in part.tables]
    if report.tuning is not None:
        lines += ["## Tuning", "", to_markdown(report.tuning)]
    if report.failures.rows:
        lines += ["## Failures", "", to_markdown(report.failures)]
    for reason, count in report.facts.left_out:
        lines.append(f"- {count} combinations are no part of the study: {reason}")
    return "\n".join(lines).rstrip() + "\n"


def to_json(report: Report) -> dict[str, Any]:
    """Return the report for machines: statements, and every table with all its digits."""
    return {
        "title": report.facts.title,
        "cells": {status: sum(row.status == status for row in report.rows) for status in ("done", "failed", "missing")},
        "summary": [{"kind": sentence.kind, "text": sentence.text} for sentence in report.summary],
        "metrics": [
            {
                "name": part.analysis.metric,
                "higher_is_better": part.analysis.higher,
                "best": part.settings[0].name if part.settings and part.settings[0].mean is not None else None,
            }
            for part in report.parts
        ],
        "tables": {
            table.name: {
                "columns": [column.title for column in table.columns],
                "rows": [list(row) for row in table.rows],
            }
            for table in every_table(report)
        },
    }
