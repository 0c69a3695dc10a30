"""The samples of a run, and how figures are written."""

import statistics


class Results:
    """Samples {(server, name): [a value a round]}."""

    def __init__(self, samples):
        self.samples = samples

    def median(self, server, name):
        """None if it was not measured."""
        values = self.samples.get((server, name))
        return statistics.median(values) if values else None

    def range(self, server, name):
        values = self.samples.get((server, name))
        return (min(values), max(values)) if values else None

    def cell(self, server, name):
        """Median and, of several rounds, the spread."""
        middle = self.median(server, name)
        if middle is None:
            return "–"
        low, high = map(number, self.range(server, name))
        return number(middle) if low == high else f"{number(middle)} ({low}–{high})"


def ratio(a, b):
    """a / b, or None if one of them is missing or nothing."""
    return a / b if a is not None and b else None


def number(value):
    """Three digits."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or size == 0 else f"{value:.{1 if size >= 10 else 2}f}"


def ratio_text(value):
    if value is None:
        return "–"
    return f"1/{1 / value:.0f}" if 0 < value < 0.05 else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
