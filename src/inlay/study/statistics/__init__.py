"""What a study's table says: tests, effect sizes with intervals, comparisons, power. Needs no torch."""
