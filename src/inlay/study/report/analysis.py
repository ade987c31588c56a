"""Everything that a report says about one metric, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inlay.errors import ConfigError
from inlay.study.report.facts import Facts, higher_is_better
from inlay.study.report.heatmap import find_positions
from inlay.study.report.words import show
from inlay.study.statistics import mixed as random_effects
from inlay.study.statistics.adjust import benjamini_hochberg, holm
from inlay.study.statistics.anova import Anova, Test, anova, one_way, welch
from inlay.study.statistics.assumptions import Check, checks
from inlay.study.statistics.comparisons import Difference, Mean, games_howell, means, tukey
from inlay.study.statistics.design import Term, basis, fit, matrix
from inlay.study.statistics.permutation import freedman_lane
from inlay.study.statistics.ranks import aligned_ranks, kruskal
from inlay.study.statistics.sample import SEED, TASK, Sample, has, level_of, make_sample, sample_of
from inlay.study.table import Level, Row

SPARE = 4
"""Degrees of freedom that interactions must leave the error."""
SETTING = "setting"
MOST_LEVELS = 60
"""Levels of a factor up to which all pairs are compared."""


@dataclass(frozen=True)
class OneWay:
    """A factor alone, all else in the error."""

    test: Test
    error_freedom: int
    rank_statistic: float | None
    """H of Kruskal and Wallis."""
    rank_p: float | None
    welch: tuple[float, float, float, float] | None
    """F, degrees of freedom, p without equal variances."""


@dataclass(frozen=True)
class Line:
    """A term of the joint model, tested in every way."""

    term: Term
    second: Test
    third: Test
    adjusted: float | None
    """p of type II after Holm, over all terms of the study's own factors; None for blocks."""
    rank_p: float | None
    permutation_p: float | None


@dataclass(frozen=True)
class Factor:
    """The levels of a factor held against each other."""

    name: str
    means: tuple[Mean, ...]
    runs: tuple[tuple[float, ...], ...]
    """For each of the means the single runs behind it, freed of what tasks, seeds and other factors do: the mean and
    what the model leaves unexplained. As measured where the mean is undetermined."""
    tukey: tuple[Difference, ...]
    games_howell: tuple[Difference, ...]
    alone: bool
    """Whether means and pairs are of this factor without regard to the others, because empty cells leave no levels of
    it that were measured under the same ones."""
    across: Test | None
    """Against how its effect differs between tasks; None with one task."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """All tests of one metric."""

    metric: str
    higher: bool | None
    """Whether a greater value is better; None where nothing says so."""
    sample: Sample
    factors: tuple[str, ...]
    """The study's own factors that vary among the results."""
    blocks: tuple[str, ...]
    """`task` and `seed`, where they vary."""
    constant: tuple[str, ...]
    """Factors of one level: nothing can be said of them."""
    one_way: tuple[OneWay, ...]
    table: Anova | None
    """The joint model; None where it leaves no degrees of freedom."""
    lines: tuple[Line, ...]
    pooled: tuple[Term, ...]
    """Interactions that were not put into the model: they are part of the error."""
    checks: tuple[Check, ...]
    compared: tuple[Factor, ...]
    overall: Factor | None
    """The settings, that is the combinations of all factors, held against each other as the levels of one factor named
    `SETTING`; None with one factor, with too many settings, or with nothing to compare them by."""
    mixed: random_effects.Mixed | None
    why_not_joint: str = ""

    def line(self, *term: str) -> Line | None:
        """Return the line of a term, None where the model has none."""
        return next((line for line in self.lines if set(line.term) == set(term)), None)

    @property
    def ranked(self) -> tuple[Factor, ...]:
        """All that is held against each other: the settings, and the levels of each factor."""
        return (*((self.overall,) if self.overall else ()), *self.compared)

    @property
    def deviation(self) -> float | None:
        """Scatter of single runs that the model does not explain, in the metric's unit."""
        return None if self.table is None or self.table.exact else self.table.error.mean_square**0.5

    def better(self, one: float, other: float) -> bool:
        """Return whether a value is better than another; greater counts as better where nothing says otherwise."""
        return one > other if self.higher is not False else one < other


def analyse(rows: Sequence[Row], metric: str, facts: Facts, draws: int = 9999) -> Analysis:
    """Return all tests of one metric.

    Args:
        rows: of the study; those without the metric are left out.
        metric: one that some row has.
        facts: of the study.
        draws: permutations of each test.
    """
    used = [row for row in rows if has(row, metric)]
    names = list(dict.fromkeys(name for row in rows for name in row.factors))
    levels = {name: {level_of(row, name) for row in used} for name in [*names, TASK, SEED]}
    factors = tuple(name for name in names if len(levels[name]) > 1)
    blocks = tuple(name for name in (TASK, SEED) if len(levels[name]) > 1)
    sample = sample_of(rows, metric, [*factors, *blocks])
    terms, pooled = choose_terms(sample, factors, blocks)
    table, why = None, ""
    if terms:
        try:
            table = anova(sample, terms)
        except ConfigError as error:
            why = str(error)
    return Analysis(
        metric=metric,
        higher=higher_is_better(metric, facts),
        sample=sample,
        factors=factors,
        blocks=blocks,
        constant=tuple(name for name in names if len(levels[name]) < 2),
        one_way=tuple(
            found
            for part in (sample, _ends(used, metric))
            for name in (part.factors if part is not None and part is not sample else factors)
            if part is not None and (found := _one_way(part, name)) is not None
        ),
        table=table,
        lines=tuple(_lines(table, factors, draws)) if table else (),
        pooled=tuple(pooled),
        checks=tuple(checks(table)) if table else (),
        compared=tuple(_compare(table, name, blocks) for name in factors) if table and not table.exact else (),
        overall=_overall(used, metric, factors, blocks),
        mixed=_mixed(sample, table, blocks) if table else None,
        why_not_joint=why,
    )


def choose_terms(
    sample: Sample, factors: Sequence[str], blocks: Sequence[str]
) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    """Return the terms of the joint model, and the interactions for which there are too few observations.

    All main effects and blocks; then, as long as `SPARE` degrees of freedom are left to the error, the interactions of
    two factors and of each factor with the task. Seeds have no interactions: those are the error.
    """
    terms: list[Term] = [(name,) for name in [*factors, *blocks]]
    if not factors:
        return (), ()
    candidates: list[Term] = [(one, other) for place, one in enumerate(factors) for other in factors[place + 1 :]]
    candidates += [(name, TASK) for name in factors if TASK in blocks]
    space = basis(matrix(sample, terms))
    if SEED in blocks and len(sample) - space.shape[1] < 1:
        terms.remove((SEED,))  # nothing but seeds could be the error
        space = basis(matrix(sample, terms))
    pooled = []
    for term in candidates:
        larger = basis(matrix(sample, [*terms, term]))
        if larger.shape[1] == space.shape[1]:
            continue  # nothing to be seen of it in these data
        if len(sample) - larger.shape[1] < SPARE:
            pooled.append(term)
            continue
        terms, space = [*terms, term], larger
    return tuple(terms), tuple(pooled)


def _ends(rows: Sequence[Row], metric: str) -> Sample | None:
    """Return the runs by input and by output position, where one factor of the study names the pair of both."""
    positions = find_positions(rows)
    if positions is None or positions.input != positions.output:
        return None
    pairs = [pair for row in rows if (pair := positions.of(row)) is not None]
    if len(pairs) < len(rows):
        return None
    ends = {"input position": [one for one, _ in pairs], "output position": [other for _, other in pairs]}
    return make_sample([row.metrics[metric] for row in rows], ends)  # type: ignore[arg-type]


def _one_way(sample: Sample, name: str) -> OneWay | None:
    try:
        test = one_way(sample, name)
    except ConfigError:
        return None
    try:
        statistic, _, p = kruskal(sample, name)
    except ConfigError:
        statistic, p = None, None
    return OneWay(test, len(sample) - 1 - test.freedom, statistic, p, welch(sample, name))


def _lines(table: Anova, factors: Sequence[str], draws: int) -> list[Line]:
    third = anova(table.sample, table.terms, "III")
    own = [test.term for test in table.tests if test.p is not None and set(test.term) & set(factors)]
    adjusted = dict(zip(own, holm([table.test(*term).p or 0.0 for term in own]), strict=True))
    lines = []
    for test in table.tests:
        ranks = permuted = None
        if test.p is not None:
            ranks = aligned_ranks(table.sample, table.terms, test.term).p
            permuted = freedman_lane(table.sample, table.terms, test.term, draws=draws)
        lines.append(Line(test.term, test, third.test(*test.term), adjusted.get(test.term), ranks, permuted))
    return lines


def _compare(table: Anova, name: str, blocks: Sequence[str]) -> Factor:
    sample, terms = table.sample, table.terms
    found = means(sample, terms, name)
    alone = all(mean.value is None for mean in found)
    if alone:
        terms = ((name,), *((block,) for block in blocks))
        found = means(sample, terms, name)
    few = len(sample.levels[name]) <= MOST_LEVELS
    return Factor(
        name,
        tuple(found),
        _runs(sample, terms, name, found),
        tuple(tukey(sample, terms, name)) if few else (),
        tuple(games_howell(sample, name, level=None)) if few and len(sample.levels[name]) <= 12 else (),
        alone,
        random_effects.across(sample, name, TASK) if TASK in blocks else None,
    )


def _runs(sample: Sample, terms: Sequence[Term], name: str, found: Sequence[Mean]) -> tuple[tuple[float, ...], ...]:
    residuals = fit(sample, matrix(sample, terms)).residuals
    runs = []
    for code, mean in enumerate(found):
        here = sample.codes[name] == code
        values = sample.response[here] if mean.value is None else mean.value + residuals[here]
        runs.append(tuple(values.tolist()))
    return tuple(runs)


def setting_name(levels: Sequence[Level]) -> str:
    """Return what a combination of levels is called."""
    return " / ".join(show(level) for level in levels) or "the only setting"


def _overall(rows: Sequence[Row], metric: str, factors: Sequence[str], blocks: Sequence[str]) -> Factor | None:
    names = [setting_name([row.factors.get(name) for name in factors]) for row in rows]
    if len(factors) < 2 or not 1 < len(set(names)) <= min(MOST_LEVELS, len(names) - 1):
        return None
    levels = {SETTING: names, **{block: [level_of(row, block) for row in rows] for block in blocks}}
    sample = make_sample([row.metrics[metric] for row in rows], levels)  # type: ignore[arg-type]
    terms, _ = choose_terms(sample, [SETTING], blocks)
    try:
        table = anova(sample, terms)
    except ConfigError:
        return None
    if table.exact:
        return None
    return _compare(table, SETTING, blocks)


def _mixed(sample: Sample, table: Anova, blocks: Sequence[str]) -> random_effects.Mixed | None:
    fixed = [term for term in table.terms if not set(term) & set(blocks)]
    try:
        return random_effects.mixed(sample, fixed, blocks)
    except ConfigError:
        return None  # empty cells; the table of variance says which


def exploratory(analyses: Sequence[Analysis]) -> dict[tuple[str, Term], float]:
    """Return p of every term of every further metric, adjusted together by Benjamini and Hochberg."""
    found = [
        (analysis.metric, line.term, line.second.p)
        for analysis in analyses[1:]
        for line in analysis.lines
        if line.second.p is not None and set(line.term) & set(analysis.factors)
    ]
    adjusted = benjamini_hochberg([p for _, _, p in found])
    return {(metric, term): value for (metric, term, _), value in zip(found, adjusted, strict=True)}
