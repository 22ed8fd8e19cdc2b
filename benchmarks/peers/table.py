"""The table of the libraries' step costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HEAD = (
    *("library", "SGD, ms", "step that keeps its curvature", "(1:1)", "(10:100)", "(100:100)"),
    *("factors, of an SGD step", "inverses, of an SGD step", "memory beyond SGD, MiB"),
)


def step_cost(row: Mapping[str, str], factor_interval: int, inverse_interval: int) -> float | None:
    """The mean step at two intervals over the SGD step, from the medians of the kinds.

    Args:
        row: a line of the CSV file without an error.
        factor_interval: steps from statistics to statistics.
        inverse_interval: steps from refresh to refresh.

    Returns:
        The ratio, or None where the library lacks a kind and the intervals differ.
    """
    sgd, kept, everything = (float(row[f"{kind}_ms"]) for kind in ("sgd", "kept", "everything"))
    if not row["factors_ms"]:
        # Statistics and what takes the place of inverses come together.
        if factor_interval != inverse_interval:
            return None
        return (kept + (everything - kept) / inverse_interval) / sgd
    factors = float(row["factors_ms"])
    return (kept + (factors - kept) / factor_interval + (everything - factors) / inverse_interval) / sgd


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _cells(row: Mapping[str, str]) -> list[str]:
    name = f"{row['library']} ({row['version']})"
    if row["error"]:
        return [name, row["error"].replace("|", "/"), *[""] * (len(HEAD) - 2)]
    sgd = float(row["sgd_ms"])
    low, high = (float(row[f"kept_{end}"]) / sgd for end in ("low", "high"))
    cells = [name, f"{sgd:.1f}", f"{step_cost(row, 10**9, 10**9):.3f} ({low:.3f} to {high:.3f})"]
    cells += [_ratio(step_cost(row, *intervals)) for intervals in ((1, 1), (10, 100), (100, 100))]
    if row["factors_ms"]:
        factors = float(row["factors_ms"])
        cells += [_ratio((factors - float(row["kept_ms"])) / sgd)]
        cells += [_ratio((float(row["everything_ms"]) - factors) / sgd)]
    else:
        cells += [f"both: {(float(row['everything_ms']) - float(row['kept_ms'])) / sgd:.2f}", ""]
    return [*cells, f"{float(row['everything_mib']) - float(row['sgd_mib']):.0f}"]


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Formats all lines as Markdown, a table per problem.

    Args:
        rows: the lines of the CSV file.

    Returns:
        The tables, and what their columns mean.
    """
    lines = ["# Step costs of other libraries of curvature", ""]
    lines += ["    python -m benchmarks.peers", ""]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        lines += [f"## {problem}", "", "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows if row["problem"] == problem]
        lines += [""]
    lines += [
        "Times are medians; in parentheses, the quartiles. Every ratio is to the momentum SGD of the same "
        "framework, measured in turn in the same process. (10:100) takes statistics every 10 steps and "
        "inverses every 100. The memory is the peak of a process that refreshes at every step, less that of "
        "one that trains with SGD.",
        "",
    ]
    return "\n".join(lines)
