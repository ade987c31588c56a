"""What the data support and what they do not, in plain sentences made from the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inlay.study.report.analysis import Analysis, Line
from inlay.study.report.settings_table import Setting, differ, pareto
from inlay.study.report.words import COSTS, cost, listed, number, p_equals, percent, plural, show, verb
from inlay.study.statistics.comparisons import Difference
from inlay.study.statistics.design import name_of
from inlay.study.statistics.power import detectable, deviation_bounds, seeds_needed
from inlay.study.statistics.sample import SEED, TASK
from inlay.study.table import Level, Row

ALPHA = 0.05
Kind = Literal["supported", "open", "caution"]


@dataclass(frozen=True)
class Sentence:
    """One statement."""

    kind: Kind
    """`supported` by the data; `open`: they do not decide it; `caution`: what to bear in mind."""
    text: str


def summarise(rows: Sequence[Row], analyses: Sequence[Analysis], settings: Sequence[Setting]) -> list[Sentence]:
    """Return the sentences of a report about the metric that the study is judged by.

    Args:
        rows: all cells.
        analyses: of every metric, that one first.
        settings: of `settings_of`, by that metric.
    """
    if not analyses:
        return [Sentence("caution", f"No cell has a result yet. {_state(rows)}")]
    first = analyses[0]
    said = [Sentence("caution", _state(rows))] if any(row.status != "done" for row in rows) else []
    said += _unmeasured(rows)
    said += _effects(first)
    said += _interactions(first)
    said += _best(first, settings)
    said += _elsewhere(first)
    said += _power(first, settings)
    said += _costs(first, settings)
    said += _assumptions(first)
    said += _multiplicity(analyses)
    return said


def _state(rows: Sequence[Row]) -> str:
    counts = {status: sum(row.status == status for row in rows) for status in ("done", "failed", "missing")}
    text = f"{counts['done']:,} of {plural(len(rows), 'cell')} have a result"
    if counts["failed"]:
        text += f"; {counts['failed']:,} failed"
    if counts["missing"]:
        text += f"; {counts['missing']:,} {verb(counts['missing'], 'has', 'have')} not run"
    text += ". What is missing is shown as missing, and no statement below counts it."
    if counts["failed"]:
        text += (
            " If a setting fails because it is a bad one, the others' comparison is fair, but the failures belong "
            "to the result."
        )
    return text


def _unmeasured(rows: Sequence[Row]) -> list[Sentence]:
    done = [row for row in rows if row.status == "done"]
    alike: Counter[tuple[tuple[str, ...], str | None]] = Counter()
    for row in done:
        lacking = tuple(name for name, value in row.metrics.items() if value is None)
        if lacking:
            alike[lacking, row.reason] += 1
    said = []
    for (names, reason), count in alike.items():
        why = f" ({reason.rstrip('.')})" if reason else ""
        text = f"{listed(names)} {verb(len(names))} missing in {count:,} of {plural(len(done), 'result')}{why}."
        said.append(Sentence("caution", text))
    return said


def _effects(first: Analysis) -> list[Sentence]:
    said = []
    if first.table is None:
        for one in first.one_way:
            test = one.test
            if test.p is not None and test.f is not None and test.effect is not None:
                said.append(
                    Sentence(
                        "supported" if test.p < ALPHA else "open",
                        f"{test.name} alone: F({test.freedom}, {one.error_freedom}) = {number(test.f)}, "
                        f"{p_equals(test.p)}, eta² = {number(test.effect.eta_squared)}.",
                    )
                )
        if first.why_not_joint:
            said.append(Sentence("caution", f"The factors cannot be analysed together: {first.why_not_joint}."))
        return said
    ranked = sorted(
        (line for name in first.factors if (line := first.line(name)) is not None),
        key=lambda line: -(line.second.effect.partial_omega_squared if line.second.effect else -1),
    )
    for line in ranked:
        said.append(_effect(first, line))
    tested = [one for one in first.one_way if one.test.f is not None and one.test.effect is not None]
    if len(tested) > 1:
        tested.sort(key=lambda one: -(one.test.f or 0.0))
        figures = [
            f"{one.test.name} F({one.test.freedom}, {one.error_freedom}) = {number(one.test.f)}, "
            f"{p_equals(one.test.p or 0.0)}"
            for one in tested
        ]
        said.append(
            Sentence(
                "caution",
                f"Each factor alone, all else counted as chance, as publications test it: {'; '.join(figures)}. These "
                "p are not adjusted.",
            )
        )
    if first.constant:
        said.append(
            Sentence("open", f"Nothing can be said about {listed(first.constant)}: all results have the same level.")
        )
    return said


def _effect(first: Analysis, line: Line) -> Sentence:
    assert first.table is not None
    test, name = line.second, name_of(line.term)
    if test.f is None or test.p is None or test.effect is None or line.adjusted is None:
        return Sentence("open", f"Whether {name} matters for {first.metric} cannot be tested: {test.note}.")
    figures = f"F({test.freedom}, {first.table.error.freedom}) = {number(test.f)}, {p_equals(line.adjusted)}"
    share = test.effect.share
    extent = f"{percent(share.low)} to {percent(share.high)}"
    doubt = _doubt(line)
    if line.adjusted < ALPHA:
        text = (
            f"{name} matters for {first.metric} ({figures}). Of the variance that is its own or chance, it explains "
            f"{percent(test.effect.partial_omega_squared)} (95 % interval {extent}).{doubt}"
        )
        return Sentence("supported", text)
    text = (
        f"That {name} matters for {first.metric} was not shown ({figures}). This is no proof that it does not: shares "
        f"of the variance up to {percent(share.high)} are compatible with the data.{doubt}"
    )
    return Sentence("open", text)


def _doubt(line: Line) -> str:
    """Return a warning where tests with fewer assumptions see it otherwise."""
    if line.second.p is None or line.rank_p is None or line.permutation_p is None:
        return ""
    plain = line.second.p < ALPHA
    other = [
        f"{name} ({p_equals(p)})"
        for name, p in (("ranks", line.rank_p), ("permutations", line.permutation_p))
        if (p < ALPHA) != plain
    ]
    if not other:
        return " Tests by ranks and by permutations agree."
    return f" The test by {listed(other)} sees it otherwise than F ({p_equals(line.second.p)}): do not lean on it."


def _interactions(first: Analysis) -> list[Sentence]:
    said = []
    for line in first.lines:
        if len(line.term) < 2 or line.adjusted is None or line.adjusted >= ALPHA:
            continue
        one, other = line.term
        best = _best_at_each(first, one, other)
        if len(set(best.values())) == 1:
            text = (
                f"How much {one} matters depends on the {other} ({p_equals(line.adjusted)}); "
                f"{next(iter(best.values()))} has the best mean at every {other}, though."
            )
        else:
            each = listed([f"{name} at {level}" for level, name in best.items()])
            text = (
                f"Which {one} is best depends on the {other} ({p_equals(line.adjusted)}): {each} "
                f"{verb(len(best), 'has', 'have')} the best mean. Averages over the {other} hide this."
            )
        said.append(Sentence("supported", text))
    if first.pooled:
        names = listed([name_of(term) for term in first.pooled])
        said.append(
            Sentence("caution", f"There are too few results to see the interaction of {names}; it counts as chance.")
        )
    return said


def _best_at_each(first: Analysis, one: str, other: str) -> dict[str, str]:
    """Return for each level of the second factor the level of the first with the best plain mean."""
    sample, found = first.sample, {}
    for place, level in enumerate(sample.levels[other]):
        means = {
            show(sample.levels[one][code]): float(sample.response[chosen].mean())
            for code in range(len(sample.levels[one]))
            if (chosen := (sample.codes[one] == code) & (sample.codes[other] == place)).any()
        }
        found[show(level)] = (max if first.higher is not False else min)(means, key=lambda name: means[name])
    return found


def _best(first: Analysis, settings: Sequence[Setting]) -> list[Sentence]:
    said = []
    for factor in first.ranked:
        known = [mean for mean in factor.means if mean.value is not None and mean.bounds is not None]
        if len(known) < 2 or not factor.tukey:
            continue
        best = known[0]
        for mean in known[1:]:
            if first.better(mean.value or 0.0, best.value or 0.0):
                best = mean
        rivals = [_against(pair, best.level) for pair in factor.tukey if best.level in (pair.first, pair.second)]
        level = show(best.level)
        assert best.bounds is not None
        figures = f"{number(best.value)}, 95 % interval {number(best.bounds.low)} to {number(best.bounds.high)}"
        ahead = [rival for rival in rivals if rival[2] is not None and rival[2] < ALPHA]
        tied = [show(rival[0]) for rival in rivals if rival[2] is None or rival[2] >= ALPHA]
        word = "highest" if first.higher is not False else "lowest"
        regard = ", without regard to the other factors" if factor.alone else ""
        text = f"{factor.name}{regard}: {level} has the {word} mean {first.metric} ({figures})"
        if not tied:
            nearest = min(ahead, key=lambda rival: abs(rival[1] or 0.0))
            gap = number(abs(nearest[1] or 0.0))
            text += f", clearly better than every other; the nearest is {show(nearest[0])}, by {gap}."
            said.append(Sentence("supported", text))
        elif ahead:
            worse = listed([show(rival[0]) for rival in ahead])
            text += f", clearly better than {worse}; it cannot be told from {listed(tied)}."
            said.append(Sentence("supported", text))
        else:
            text += f", but it cannot be told from {listed(tied)}: which of them is best, chance may have decided."
            said.append(Sentence("open", text))
    if first.higher is None:
        said.append(
            Sentence(
                "caution",
                f"Nothing says which way {first.metric} is good; the greatest value is called best. State it in the "
                f"study file: `higher_is_better: {{{first.metric}: false}}`.",
            )
        )
    return said


def _against(pair: Difference, level: Level) -> tuple[Level, float | None, float | None]:
    return (pair.second if pair.first == level else pair.first), pair.value, pair.p


def _elsewhere(first: Analysis) -> list[Sentence]:
    """Say whether findings hold for other tasks."""
    if TASK not in first.blocks:
        if first.compared:
            text = (
                "All results are of one task: nothing here says that another subject or domain would rank them alike."
            )
            return [Sentence("caution", text)]
        return []
    count = len(first.sample.levels[TASK])
    said = []
    for factor in first.compared:
        line = first.line(factor.name)
        if factor.across is None or factor.across.p is None or line is None or line.adjusted is None:
            continue
        p = factor.across.p
        if line.adjusted < ALPHA and p >= ALPHA:
            text = (
                f"The effect of {factor.name} holds for the {count} tasks measured; that it holds for others is not "
                f"shown ({p_equals(p)} against how it differs between them)."
            )
            said.append(Sentence("open", text))
        elif line.adjusted < ALPHA:
            text = (
                f"The effect of {factor.name} is large against its differences between the {count} tasks "
                f"({p_equals(p)}): other tasks of this kind should show it too, as far as {count} can tell."
            )
            said.append(Sentence("supported", text))
    return said


def _power(first: Analysis, settings: Sequence[Setting]) -> list[Sentence]:
    if first.table is None or first.deviation is None or not first.deviation > 0:
        return []
    counts = sorted(len(one.values) for one in settings if one.values)
    each, deviation = counts[len(counts) // 2], first.deviation
    bounds = deviation_bounds(first.table.error.mean_square, first.table.error.freedom)
    text = (
        f"Single runs scatter by {number(deviation)} ({number(bounds.low)} to {number(bounds.high)}) in {first.metric}"
    )
    difference = detectable(deviation, each)
    if difference is None:
        text += "; with one run a setting, no difference between two single settings can be shown."
    else:
        text += (
            f"; with {plural(each, 'run')} a setting, a difference of {number(difference)} between two of them would "
            "be found in 4 of 5 studies, smaller ones more rarely."
        )
    valued = [one for one in settings if one.mean is not None]
    if len(valued) > 1:
        gap = abs((valued[0].mean or 0.0) - (valued[1].mean or 0.0))
        if gap > 0:
            needed = seeds_needed(gap, deviation)
            wanted = "more than 100,000 runs" if needed is None else plural(needed, "run")
            text += (
                f" To tell the first two, {valued[0].name} and {valued[1].name}, apart (now {number(gap)}), about "
                f"{wanted} of each would be needed."
            )
    return [Sentence("caution", text)]


def _costs(first: Analysis, settings: Sequence[Setting]) -> list[Sentence]:
    said = []
    valued = [one for one in settings if one.mean is not None]
    for name in ("training_seconds", "trainable_parameters"):
        front = pareto(valued, name, first.better)
        if len(valued) < 2 or not front or not differ(valued, name):
            continue
        if len(front) == 1:
            text = f"By {COSTS[name]}, {front[0].name} is both cheapest and best."
        else:
            points = [f"{one.name} ({cost(name, one.costs[name])}, {number(one.mean)})" for one in front]
            text = f"By {COSTS[name]}, nothing beats at the same cost: {listed(points)}."
        said.append(Sentence("caution", text))
    if said:
        text = "These comparisons are of means, without regard to chance; times are those of the machine that ran them."
        said.append(Sentence("caution", text))
    return said


def _assumptions(first: Analysis) -> list[Sentence]:
    broken = [check for check in first.checks if check.p is not None and check.p < ALPHA]
    unknown = [check for check in first.checks if check.p is None]
    said = []
    if broken:
        names = listed([f"{check.name.split(' (')[0]} ({p_equals(check.p or 0.0)})" for check in broken])
        said.append(
            Sentence(
                "caution",
                f"What the F tests assume is not met: {names}. Where ranks, permutations and Games-Howell disagree "
                "with the tables, believe them rather than F.",
            )
        )
    elif first.checks and len(unknown) < len(first.checks):
        said.append(
            Sentence(
                "caution", "No assumption of the F tests is visibly broken; with few runs this shows only gross faults."
            )
        )
    if first.table is not None and first.table.missing:
        count = sum(len(cells) for _, cells in first.table.missing)
        names = listed([name_of(term) for term, _ in first.table.missing])
        said.append(
            Sentence(
                "caution",
                f"{plural(count, 'combination')} of {names} were not measured or do not exist: the interaction is "
                "tested on the others alone, and type III is left out where it would mean nothing.",
            )
        )
    if first.table is not None and SEED not in first.blocks:
        said.append(
            Sentence("caution", "Every setting has one seed a task: chance and interactions cannot be told apart.")
        )
    return said


def _multiplicity(analyses: Sequence[Analysis]) -> list[Sentence]:
    first = analyses[0]
    count = sum(line.adjusted is not None for line in first.lines)
    if not count:
        return []
    together = f"{count} tests of {first.metric} are adjusted together (Holm), pairs within a factor by Tukey"
    if count == 1:
        together = f"Pairs of levels are adjusted together for {first.metric} (Tukey)"
    text = f"{together}: a false alarm anywhere in such a family is as rare as 1 in 20."
    if len(analyses) > 1:
        names = listed([analysis.metric for analysis in analyses[1:]])
        others = len(analyses) - 1
        text += (
            f" The study is judged by {first.metric}; {names} {verb(others, 'was', 'were')} looked at, too, and "
            f"{verb(others)} exploratory."
        )
    return [Sentence("caution", text)]
