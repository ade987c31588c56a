"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inlay.study.report.analysis import Analysis, Factor
from inlay.study.report.settings_table import Setting
from inlay.study.report.tables import Table, Value, make_table
from inlay.study.report.words import COSTS, SCALES, UNITS, show
from inlay.study.statistics.design import Term, name_of
from inlay.study.statistics.power import detectable, pair_power, seeds_needed
from inlay.study.table import Row

SEEDS = (2, 3, 5, 10, 20, 50)
"""Seeds a setting of the table of power."""


def tables(
    rows: Sequence[Row], analysis: Analysis, settings: Sequence[Setting], explored: Mapping[tuple[str, Term], float]
) -> list[Table]:
    """Return the tables of one metric.

    Args:
        rows: all cells.
        analysis: of the metric.
        settings: by this metric.
        explored: p of the terms of metrics that the study is not judged by; of `exploratory`.
    """
    found = [_settings(analysis, settings)]
    if analysis.table is not None:
        found.append(_joint(analysis, explored))
    found.append(_one_way(analysis))
    for factor in analysis.ranked:
        found.append(_means(analysis, factor))
        if factor.tukey:
            found.append(_pairs(analysis, factor))
    found += [table for table in (_checks(analysis), _mixed(analysis), _power(analysis, settings)) if table is not None]
    return [table for table in found if table.rows]


def _settings(analysis: Analysis, settings: Sequence[Setting]) -> Table:
    costs = [name for name in COSTS if any(one.costs.get(name) is not None for one in settings)]
    scale = {name: SCALES.get(name, 1) for name in costs}
    rows = []
    for one in settings:
        row: list[Value] = [show(level) for level in one.levels]
        row += [one.mean, one.half_width, len(one.values), one.failed or None]
        row += [None if (spent := one.costs[name]) is None else spent / scale[name] for name in costs]
        rows.append(row)
    titles = [f"{COSTS[name]}, {UNITS[name]}" if name in UNITS else COSTS[name] for name in costs]
    kinds = ["count" if name == "trainable_parameters" else "number" for name in costs]
    return make_table(
        f"settings-{analysis.metric}",
        f"Settings by {analysis.metric}",
        [
            *(analysis.factors or ()),
            ("mean", "number"),
            ("± 95 %", "number"),
            ("runs", "count"),
            ("failed", "count"),
            *zip(titles, kinds, strict=True),
        ],
        rows,
        "Means give every task and seed equal weight where the model of the settings tells how, so that a failed cell "
        "favours nobody; ± is their 95 % interval. Costs are plain means.",
    )


def _joint(analysis: Analysis, explored: Mapping[tuple[str, Term], float]) -> Table:
    assert analysis.table is not None
    rows: list[Sequence[Value]] = []
    secondary = any(metric == analysis.metric for metric, _ in explored)
    for line in analysis.lines:
        test, effect = line.second, line.second.effect
        adjusted = explored.get((analysis.metric, line.term)) if secondary else line.adjusted
        sizes: list[Value] = [None] * 5
        if effect is not None:
            sizes = [
                effect.eta_squared,
                effect.partial_eta_squared,
                effect.partial_omega_squared,
                effect.share.low,
                effect.share.high,
            ]
        rows.append(
            [
                name_of(line.term),
                test.freedom,
                test.sum_of_squares,
                test.f,
                test.p,
                adjusted,
                line.third.f,
                line.third.p,
                line.rank_p,
                line.permutation_p,
                *sizes,
            ]
        )
    error = analysis.table.error
    rows.append(["error", error.freedom, error.sum_of_squares, *[None] * 12])
    notes = [f"{name_of(line.term)}: {line.second.note}" for line in analysis.lines if line.second.note]
    notes += [f"type III: {line.third.note}" for line in analysis.lines if line.third.note and not line.second.note][:1]
    return make_table(
        f"anova-{analysis.metric}",
        f"Analysis of variance of {analysis.metric}",
        [
            "term",
            ("df", "count"),
            ("sum of squares", "number"),
            ("F", "number"),
            ("p", "p"),
            ("p adjusted", "p"),
            ("F type III", "number"),
            ("p type III", "p"),
            ("p ranks", "p"),
            ("p permutations", "p"),
            ("η²", "number"),
            ("partial η²", "number"),
            ("partial ω²", "number"),
            ("share from", "number"),
            ("to", "number"),
        ],
        rows,
        "Type II, each term after all that do not contain it. "
        + ("Adjusted by Benjamini and Hochberg with all exploratory metrics. " if secondary else "Adjusted by Holm. ")
        + "The share is the 95 % interval of the population's partial η². "
        + "; ".join(notes),
    )


def _one_way(analysis: Analysis) -> Table:
    rows = []
    for one in analysis.one_way:
        test, effect = one.test, one.test.effect
        bounds = (
            (effect.eta_squared, effect.omega_squared, effect.share.low, effect.share.high) if effect else (None,) * 4
        )
        other = (one.welch[0], one.welch[3]) if one.welch else (None, None)
        rows.append(
            [
                test.name,
                test.freedom,
                one.error_freedom,
                test.f,
                test.p,
                *bounds,
                one.rank_statistic,
                one.rank_p,
                *other,
            ]
        )
    return make_table(
        f"one-way-{analysis.metric}",
        f"Each factor alone, {analysis.metric}",
        [
            "factor",
            ("df", "count"),
            ("df of error", "count"),
            ("F", "number"),
            ("p", "p"),
            ("η²", "number"),
            ("ω²", "number"),
            ("share from", "number"),
            ("to", "number"),
            ("H of Kruskal-Wallis", "number"),
            ("p of H", "p"),
            ("F of Welch", "number"),
            ("p of Welch", "p"),
        ],
        rows,
        "As publications report it: all other factors, tasks and seeds count as chance. p is not adjusted.",
    )


def _means(analysis: Analysis, factor: Factor) -> Table:
    return make_table(
        f"means-{factor.name}-{analysis.metric}",
        f"Means of {factor.name}, {analysis.metric}",
        [factor.name, ("mean", "number"), ("from", "number"), ("to", "number"), ("runs", "count")],
        [
            [
                show(mean.level),
                mean.value,
                mean.bounds.low if mean.bounds else None,
                mean.bounds.high if mean.bounds else None,
                mean.count,
            ]
            for mean in factor.means
        ],
        "Without regard to the other factors, with 95 % intervals of each alone."
        if factor.alone
        else "Averages over the levels of all other factors with equal weight, with 95 % intervals of each alone.",
    )


def _pairs(analysis: Analysis, factor: Factor) -> Table:
    howell = {(pair.first, pair.second): pair.p for pair in factor.games_howell}
    rows = [
        [
            show(pair.first),
            show(pair.second),
            pair.value,
            pair.bounds.low if pair.bounds else None,
            pair.bounds.high if pair.bounds else None,
            pair.p,
            howell.get((pair.first, pair.second)),
        ]
        for pair in factor.tukey
    ]
    return make_table(
        f"pairs-{factor.name}-{analysis.metric}",
        f"Differences between levels of {factor.name}, {analysis.metric}",
        [
            "first",
            "second",
            ("first less second", "number"),
            ("from", "number"),
            ("to", "number"),
            ("p of Tukey", "p"),
            ("p of Games-Howell", "p"),
        ],
        rows,
        "Tukey's intervals hold together; Games-Howell does without equal variances, and counts all else as chance.",
    )


def _checks(analysis: Analysis) -> Table | None:
    if not analysis.checks:
        return None
    return make_table(
        f"checks-{analysis.metric}",
        f"What the F tests assume, {analysis.metric}",
        ["assumption", ("statistic", "number"), ("p", "p"), "note"],
        [[check.name, check.statistic, check.p, check.note] for check in analysis.checks],
        "A small p speaks against the assumption; a large one does not prove it.",
    )


def _mixed(analysis: Analysis) -> Table | None:
    if analysis.mixed is None:
        return None
    rows: list[Sequence[Value]] = [
        [test.name, test.freedom, test.error_freedom, test.f, test.p, None] for test in analysis.mixed.tests
    ]
    rows += [[f"between {name}s", None, None, None, None, value] for name, value in analysis.mixed.deviations.items()]
    return make_table(
        f"mixed-{analysis.metric}",
        f"Mixed model, {analysis.metric}",
        [
            "term",
            ("df", "count"),
            ("df of error", "count"),
            ("F", "number"),
            ("p", "p"),
            ("standard deviation", "number"),
        ],
        rows,
        "Random intercepts by restricted maximum likelihood; fixed blocks: "
        + f"{', '.join(analysis.mixed.fixed) or 'none'}. "
        + " ".join(f"{note}." for note in analysis.mixed.notes),
    )


def _power(analysis: Analysis, settings: Sequence[Setting]) -> Table | None:
    deviation = analysis.deviation
    if deviation is None or not deviation > 0:
        return None
    pairs = max(1, len(settings) * (len(settings) - 1) // 2)
    rows = []
    for seeds in SEEDS:
        one, every = detectable(deviation, seeds), detectable(deviation, seeds, comparisons=pairs)
        rows.append([seeds, one, every, pair_power(deviation, deviation, seeds)])
    needed = seeds_needed(deviation, deviation)
    return make_table(
        f"power-{analysis.metric}",
        f"How many runs a setting show what difference, {analysis.metric}",
        [
            ("runs a setting", "count"),
            ("difference found in 4 of 5 studies", "number"),
            ("the same, all pairs at once", "number"),
            ("power for one standard deviation", "share"),
        ],
        rows,
        f"Two-sided t tests at 5 %; all {pairs:,} pairs by Bonferroni. A difference as large as the scatter of single "
        f"runs takes {needed} runs of each.",
    )
