"""Whether the F test's assumptions are visibly broken: residuals of a bell shape, equal scatter everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from inlay.study.statistics.anova import Anova

LARGEST = 5000
"""Observations beyond which the test of Shapiro and Wilk is no longer computed exactly."""


@dataclass(frozen=True)
class Check:
    """A test of an assumption; a small p speaks against it, a large one does not prove it."""

    name: str
    statistic: float | None
    p: float | None
    note: str = ""
    """Why it could not be tested."""


def normality(table: Anova) -> Check:
    """Test the residuals of the model for a bell shape (Shapiro and Wilk 1965; large samples by skew and kurtosis)."""
    residuals = table.error.residuals
    name = "residuals of a bell shape (Shapiro-Wilk)"
    if len(residuals) < 3 or table.error.sum_of_squares <= 1e-20 * max(table.total, 1e-300):
        return Check(name, None, None, "too few observations, or no residuals at all")
    # The test looks at the shape alone; scaled, it is not troubled by small numbers.
    scaled = residuals / np.sqrt(table.error.mean_square)
    if len(scaled) > LARGEST:
        found = stats.normaltest(scaled)
        return Check("residuals of a bell shape (D'Agostino-Pearson)", float(found.statistic), float(found.pvalue))
    found = stats.shapiro(scaled)
    return Check(name, float(found.statistic), float(found.pvalue))


def equal_variances(table: Anova, factor: str) -> Check:
    """Test whether residuals scatter alike at every level of a factor (Brown and Forsythe 1974)."""
    codes, residuals = table.sample.codes[factor], table.error.residuals
    name = f"equal scatter at all levels of {factor} (Brown-Forsythe)"
    groups = [residuals[codes == code] for code in range(len(table.sample.levels[factor]))]
    # Three: of two numbers both lie equally far from their median, which says nothing about scatter within a group.
    groups = [group for group in groups if len(group) >= 3]
    if len(groups) < 2:
        return Check(name, None, None, "fewer than three observations at all levels, or all but one")
    distances = [np.abs(group - np.median(group)) for group in groups]
    if all(np.ptp(distance) <= 1e-12 * max(1.0, float(np.abs(residuals).max())) for distance in distances):
        return Check(name, None, None, "the residuals do not vary within the levels")
    found = stats.levene(*groups, center="median")
    return Check(name, float(found.statistic), float(found.pvalue))


def checks(table: Anova) -> list[Check]:
    """Return all checks of a table of variance."""
    factors = dict.fromkeys(factor for term in table.terms for factor in term)
    return [normality(table), *(equal_variances(table, factor) for factor in factors)]
