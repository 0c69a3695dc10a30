"""What a run found, for people."""

import statistics


def table(samples, plan):
    return "\n".join(f"{server:8} {str(name):50} {statistics.median(values):12.3f}"
                     for (server, name), values in samples.items())


def facts(bench, top, rounds):
    return {}
