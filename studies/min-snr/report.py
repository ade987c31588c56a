"""Write `report.md` and its pictures from the records.

    python studies/min-snr/report.py

Every sentence that says more, less or no difference follows from an interval of 95 % over seeds: of the paired
difference where two settings share their seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import protocol
from matplotlib.figure import Figure
from protocol import GAMMAS, HERE, MEASURED, RECORDS, TARGETS, WEIGHTINGS

from inlay.metrics.intervals import student_quantile

COLOURS = {"constant": "#6b7280", "snr": "#1f4e96", "max_snr": "#8b4aa3", "min_snr": "#c2571a"}
LEVEL = 0.95
SEEDS = 3
PARTS = 9
"""Tenths of the timesteps that are drawn. In the last one hardly any signal is left, and the error of eps over S, which
is that of the clean picture, has no bound."""
Table = dict[str, dict[int, dict[str, Any]]]
"""Records by setting, then by seed."""


def gather(records: Sequence[dict[str, Any]]) -> Table:
    """Return records by setting and seed."""
    table: Table = {}
    for record in records:
        table.setdefault(record["setting"], {})[record["seed"]] = record
    return table


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return a mean and half the length of its Student interval; None for it where there is one value."""
    if len(values) < 2:
        return float(values[0]), None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)), error * student_quantile((1 + LEVEL) / 2, len(values) - 1)


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Return "mean ± half interval"."""
    if not values:
        return "-"
    mean, half = mean_interval(values)
    return f"{mean:.{digits}g}" + ("" if half is None else f" ± {half:.2g}")


def final(record: dict[str, Any]) -> float:
    """Return the distance at the end."""
    return record["distances"][-1]["value"]


def low_noise(record: dict[str, Any]) -> float:
    """Return the error in the first tenth of the timesteps."""
    return record["losses"]["clean_error"][0]


def high_noise(record: dict[str, Any]) -> float:
    """Return the error in the tenth from 800 to 900."""
    return record["losses"]["clean_error"][8]


def compare(table: Table, first: str, second: str, value: Any) -> tuple[str, str]:
    """Return (verdict, numbers) of the ratio of two settings' values, in pairs by seed on the logarithmic scale."""
    seeds = sorted(table.get(first, {}).keys() & table.get(second, {}).keys())
    if not seeds:
        return "not run yet", ""
    ratios = [float(np.log(value(table[first][seed]) / value(table[second][seed]))) for seed in seeds]
    mean, half = mean_interval(ratios)
    numbers = f"{first} / {second} = {np.exp(mean):.2f}"
    if half is None:
        return "one seed, so no verdict", numbers
    numbers += f", interval {np.exp(mean - half):.2f} to {np.exp(mean + half):.2f}, {len(seeds)} seeds"
    if mean + half < 0:
        return "lower", numbers
    return ("higher" if mean - half > 0 else "no difference that the seeds bear out"), numbers


FINDINGS: list[tuple[str, str, str, Any, str]] = [
    (
        "Target x0: SNR weights are far worse than constant ones (figure 5)",
        *("x0-snr", "x0-constant", final, "higher"),
    ),
    (
        "Target x0: max-SNR weights are far worse than constant ones (figure 5)",
        *("x0-max_snr", "x0-constant", final, "higher"),
    ),
    (
        "Target x0: min-SNR-5 comes nearer to the pictures than constant weights (table 1)",
        *("x0-min_snr-5", "x0-constant", final, "lower"),
    ),
    (
        "The plain eps loss comes nearer than constant weights on x0 (table 1)",
        *("eps-snr", "x0-constant", final, "lower"),
    ),
    (
        "Target eps: min-SNR-5 comes nearer than the plain loss, which is SNR (table 1)",
        *("eps-min_snr-5", "eps-snr", final, "lower"),
    ),
    (
        "Target v: min-SNR-5 comes nearer than SNR weights (figure 5)",
        *("v-min_snr-5", "v-snr", final, "lower"),
    ),
    (
        "Target x0: min-SNR-5 has a lower error than constant weights where there is little noise (figure 6)",
        *("x0-min_snr-5", "x0-constant", low_noise, "lower"),
    ),
    (
        "Target eps: min-SNR-5 has a lower error than the plain loss where there is much noise (figure 6)",
        *("eps-min_snr-5", "eps-snr", high_noise, "lower"),
    ),
]
"""Sentence, the two settings, what is compared, and what the publication found."""


def findings(table: Table) -> list[str]:
    """Return a row for each of the publication's findings: does the miniature show it?"""
    rows = ["| finding of the publication | here | figures |", "|---|---|---|"]
    for sentence, first, second, value, published in FINDINGS:
        verdict, numbers = compare(table, first, second, value)
        if verdict in ("lower", "higher"):
            verdict = "**reproduced**" if verdict == published else f"**not reproduced**: {verdict}"
        rows.append(f"| {sentence} | {verdict} | {numbers} |")
    return rows


def distances_table(table: Table) -> list[str]:
    """Return the distances at the end by target and weighting."""
    names = {name: f"{name}-5" if name == "min_snr" else name for name in WEIGHTINGS}
    rows = ["| target | " + " | ".join(names.values()) + " |", "|---|" + "---|" * len(names)]
    for target in TARGETS.values():
        cells = [shown([final(r) for r in table.get(f"{target}-{name}", {}).values()]) for name in names.values()]
        rows.append(f"| {target} | " + " | ".join(cells) + " |")
    return rows


def gamma_table(table: Table) -> list[str]:
    """Return the distances at the end by gamma."""
    gammas = sorted((*GAMMAS, 5))
    rows = ["| target | " + " | ".join(f"gamma {gamma}" for gamma in gammas) + " |", "|---|" + "---|" * len(gammas)]
    for target in ("x0", "eps"):
        found = [[final(r) for r in table.get(f"{target}-min_snr-{gamma}", {}).values()] for gamma in gammas]
        rows.append(f"| {target} | " + " | ".join(map(shown, found)) + " |")
    return rows


def draw_convergence(table: Table, path: Path) -> None:
    """Draw distance over steps, a panel a target."""
    figure = Figure(figsize=(12, 4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, target in zip(panels, TARGETS.values(), strict=True):
        for number, name in enumerate(WEIGHTINGS):
            records = list(table.get(f"{target}-{name}" + ("-5" if name == "min_snr" else ""), {}).values())
            if not records:
                continue
            values = np.array([[entry["value"] for entry in record["distances"]] for record in records])
            steps = np.array(MEASURED) * (1 + 0.02 * (number - 1.5))  # side by side, or bars would hide each other
            halves = [mean_interval(column.tolist())[1] or float("nan") for column in values.T]
            label = f"{name} ({len(records)} seeds)"
            panel.errorbar(steps, values.mean(0), halves, color=COLOURS[name], marker="o", ms=4, capsize=3, label=label)
            panel.plot(np.tile(steps, (len(values), 1)).T, values.T, ".", color=COLOURS[name], ms=3, alpha=0.5)
        panel.set_title(f"target {target}", fontsize=10)
        panel.set_xlabel("steps")
        panel.set_yscale("log")
        panel.set_xscale("log")
        panel.set_xlim(MEASURED[0] * 0.9, MEASURED[-1] * 1.1)
        panel.set_xticks(MEASURED, [str(step) for step in MEASURED])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("Frechet distance, features of digits")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def draw_losses(table: Table, path: Path) -> None:
    """Draw the unweighted error by part of the timesteps over that of constant weights, a panel a target."""
    figure = Figure(figsize=(12, 4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, target in zip(panels, TARGETS.values(), strict=True):
        control = table.get(f"{target}-constant", {})
        panel.axhline(1, color=COLOURS["constant"], label="constant")
        for name in list(WEIGHTINGS)[1:]:
            others = table.get(f"{target}-{name}" + ("-5" if name == "min_snr" else ""), {})
            seeds = sorted(others.keys() & control.keys())
            if not seeds:
                continue
            edges = np.array(others[seeds[0]]["losses"]["edges"])[: PARTS + 1]
            errors = [
                [np.array(group[seed]["losses"]["clean_error"])[:PARTS] for seed in seeds]
                for group in (others, control)
            ]
            logs = np.log(np.array(errors[0]) / np.array(errors[1]))
            halves = np.array([mean_interval(column.tolist())[1] or 0.0 for column in logs.T])
            mean = logs.mean(0)
            around = np.exp(mean) - np.exp(mean - halves), np.exp(mean + halves) - np.exp(mean)
            middles = (edges[:-1] + edges[1:]) / 2
            panel.errorbar(
                middles, np.exp(mean), around, color=COLOURS[name], marker="o", markersize=3, capsize=2, label=name
            )
        panel.set_title(f"target {target}", fontsize=10)
        panel.set_xlabel("timestep (0: clean)")
        panel.set_yscale("log")
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("error of x0, over constant weights")
    figure.savefig(path)


def analyses() -> list[str]:
    """Return what conflict and Pareto sweep found."""
    from inlay.run import conflict, pareto

    said = []
    for name, module, title in [
        ("conflict", conflict, "## Conflict between timesteps (figure 2)"),
        ("pareto", pareto, "## How near weightings are to the optimum (figures 3 and 4)"),
    ]:
        path = RECORDS / f"{name}.json"
        said += [title, ""]
        if not path.exists():
            said += ["Not run yet.", ""]
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        said += [f"- {sentence}" for sentence in module.conclusion(record)]
        said += of_the_four(record) if name == "pareto" else locality(record)
        said += ["", f"![{name}](pictures/{name}.png)", ""]
    return said


def of_the_four(record: dict[str, Any]) -> list[str]:
    """Return for each lambda which of the publication's four weightings is nearest to the optimum."""
    nearest = []
    for row, strength in enumerate(record["lambdas"]):
        draws = {name: np.array(record["objective"][name][row]) for name in WEIGHTINGS}
        best = min(draws, key=lambda name: draws[name].mean())
        wins = int((draws[best] <= np.min(list(draws.values()), axis=0)).sum())
        nearest.append(f"{strength:g}: {best} (in {wins} of {record['draws']} draws)")
    return [f"- nearest of the publication's four (constant, SNR, max-SNR, min-SNR), by lambda: {'; '.join(nearest)}"]


def locality(record: dict[str, Any]) -> list[str]:
    """Return how a bin's gain falls off with the distance to the bin that was trained on."""
    by_distance: dict[int, list[float]] = {}
    for name, change in record["changes"].items():
        if name != "uniform":
            for index, value in enumerate(change["relative_change"]):
                by_distance.setdefault(abs(index - int(name)), []).append(100 * value)
    shown = [f"{distance}: {np.mean(values):+.1f} %" for distance, values in sorted(by_distance.items())]
    return [f"- mean change of the loss by the distance from the bin trained on, in bins: {', '.join(shown)}"]


def _range(counts: Iterable[int]) -> str:
    least, most = min(counts := list(counts)), max(counts)
    return f"{least} to {most}" if least < most else f"{least}"


def main() -> None:
    """Write the report."""
    table = gather(protocol.read_records())
    counts = {setting: len(seeds) for setting, seeds in table.items()}
    wanted = {cell.setting for cell in protocol.cells(1)}
    draw_convergence(table, HERE / "pictures" / "convergence.png")
    draw_losses(table, HERE / "pictures" / "losses.png")
    records = [record for seeds in table.values() for record in seeds.values()]
    lines = [
        "# Min-SNR in miniature: report",
        "",
        "Written by `report.py` from the records; the protocol is in [README.md](README.md).",
        "",
        f"{len(records)} of {len(protocol.cells(SEEDS))} trainings are there: {len(counts)} of {len(wanted)} settings, "
        + (f"with {_range(counts.values())} of {SEEDS} seeds." if counts else "none yet."),
        "",
    ]
    if records:
        seconds = sorted(record["training_seconds"] for record in records)
        lines += [
            f"{records[0]['parameters']:,} parameters; a training took {seconds[0]:.0f} to {seconds[-1]:.0f} s.",
            "± is half of a 95 % interval over seeds (Student).",
            "",
            "## What of the publication shows here",
            "",
            *findings(table),
            "",
            "A finding is called reproduced, or not, only where the interval of the ratio over seeds excludes 1.",
            "",
            "## Distances by target and weighting (figure 5)",
            "",
            *distances_table(table),
            "",
            "![distance over steps](pictures/convergence.png)",
            "",
            "## Gamma (table 2)",
            "",
            *gamma_table(table),
            "",
            "## Error by timestep (figure 6)",
            "",
            "The unweighted error of the clean picture on held-out digits, which all targets can be asked for;",
            "without the last tenth of the timesteps, where that of eps has no bound.",
            "",
            "![error by timestep](pictures/losses.png)",
            "",
        ]
    lines += analyses()
    (HERE / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(HERE / "report.md")


if __name__ == "__main__":
    main()
