"""One SVG a group, drawn by gnuplot."""

import os
import subprocess

from goals import floor
from groups import CIPHERS
from measure import Failed

RELAYD, SSHD, FLOOR = "#2563a8", "#a3acb5", "#d59a3a"
STYLE = """
set terminal svg size 860,{height} background "#ffffff" font "Helvetica,Arial,sans-serif,13"
set border 3 lc rgb "#666666"
set tics nomirror out textcolor rgb "#333333"
set grid y lc rgb "#e4e4e4" lt 1
set boxwidth 0.86
set style fill solid 1 noborder
set key at graph 1,1.16 right horizontal maxrows 1 samplen 1.5 textcolor rgb "#222222"
set format y "%g"
set lmargin 9
set rmargin 2
set tmargin 3.5
set bmargin 3.5
"""


def gnuplot(path, script):
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.strip().endswith("</svg>"):
        raise Failed(f"gnuplot cannot draw {os.path.basename(path)}: {done.stderr.strip()[-300:]}")
    with open(path + ".new", "w") as f:
        f.write(done.stdout)
    os.replace(path + ".new", path)


def quoted(text):
    return '"' + text.replace('"', "'") + '"'


def label_of(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def heading(title):
    return f'set label 1 {quoted(title)} at graph 0,1.13 left font ",14" textcolor rgb "#222222"'


def bars(results, title, groups, series, log=False):
    """Groups of bars beside each other. groups: labels. series: (label, colour, [(server, name) a group]); a bar
    that was not measured is left out. A thin line shows the spread."""
    width, plots, tall = len(series) + 1, [], []
    for number, (label, colour, names) in enumerate(series):
        rows = []
        for group, which in enumerate(names):
            middle = which and results.median(*which)
            if middle:
                low, high = results.range(*which)
                tall += [high, low]
                rows.append(f"{group * width + number} {middle} {low} {high} {quoted(label_of(middle))}")
        if not rows:
            continue
        data = f"$d{number}"
        plots.append((f"{data} << EOD\n" + "\n".join(rows) + "\nEOD\n",
                      f'{data} using 1:2 with boxes lc rgb "{colour}" title {quoted(label)}, '
                      f'{data} using 1:3:(0):($4-$3) with vectors nohead lc rgb "#333333" notitle, '
                      f'{data} using 1:4:5 with labels offset 0,0.7 font ",11" textcolor rgb "#333333" notitle'))
    if not plots:
        return ""
    tics = ", ".join(f"{quoted(label)} {n * width + (len(series) - 1) / 2}" for n, label in enumerate(groups))
    scale = f"set logscale y\nset yrange [{min(tall) / 3}:{max(tall) * 6}]" if log else \
        f"unset logscale y\nset yrange [0:{max(tall) * 1.3}]"
    return f"""{heading(title)}
{scale}
set xtics ({tics})
set xrange [-1:{len(groups) * width - 1}]
{"".join(data for data, _ in plots)}plot {", ".join(plot for _, plot in plots)}
"""


def curves(results, title, xlabel, series, bottom):
    """series: (label, colour, server, name, counts). Both axes are logarithmic."""
    plots, values = [], [bottom]
    for number, (label, colour, server, name, counts) in enumerate(series):
        measured = [n for n in counts if results.median(server, (name, n))]
        rows = [f"{n} {results.median(server, (name, n))} {quoted(label_of(results.median(server, (name, n))))}"
                for n in measured]
        if rows:
            values += [results.median(server, (name, n)) for n in measured]
            data = f"$c{number}"
            plots.append((f"{data} << EOD\n" + "\n".join(rows) + "\nEOD\n",
                          f'{data} using 1:2 with linespoints lw 2 pt 7 ps 0.7 lc rgb "{colour}" '
                          f'title {quoted(label)}, '
                          f'{data} using 1:2:3 with labels offset 0,0.9 font ",11" textcolor rgb "#333333" notitle'))
    if not plots:
        return ""
    return f"""{heading(title)}
set xlabel {quoted(xlabel)}
set logscale xy
set xtics (100, "500" 500, "2,000" 2000, "10,000" 10000)
set xrange [60:17000]
set yrange [{bottom}:{max(values) * 8}]
{"".join(data for data, _ in plots)}plot {", ".join(plot for _, plot in plots)}
"""


def page(height, *panels):
    """Panels under each other."""
    panels = [panel for panel in panels if panel]
    if not panels:
        return None
    return STYLE.format(height=height) + f"set multiplot layout {len(panels)},1\n" + \
        "\n".join(panels) + "\nunset multiplot\n"


def fleet(results, plan):
    relayd, sshd = plan.relayd_fleets, (plan.sshd_fleet,)
    return page(560,
                curves(results, "Memory per idle device (PSS, KiB)", "devices",
                       [("relayd", RELAYD, "relayd", "pss_kib", relayd), ("sshd", SSHD, "sshd", "pss_kib", sshd)], 1),
                curves(results, "Seconds until all have logged in and published", "devices, all at once",
                       [("relayd", RELAYD, "relayd", "fleet_seconds", relayd),
                        ("sshd", SSHD, "sshd", "fleet_seconds", sshd)], 0.01))


def pair_of(names):
    return [(server, colour, [(server, name) for name in names])
            for server, colour in (("relayd", RELAYD), ("sshd", SSHD))]


def login(results, plan):
    return page(340, bars(results, "Logins per second, 16 at a time", [""], pair_of(["logins_per_second"])))


def opens(results, plan):
    names = [("opens_per_second", n) for n in plan.channels]
    return page(340, bars(results, "Opens per second, 8 at a time on one session",
                          [f"{n} idle channel{'s' * (n > 1)} on the session" for n in plan.channels], pair_of(names)))


def echo(results, plan):
    where = {"alone": "idle relay", "awake": "idle relay,\\ncores awake", "neighbour": "another tenant\\nsaturates it",
             **{f"beside {d}": f"bulk {d} on the\\nsame session" for d in plan.directions}}
    panels = [bars(results, f"One-byte round trip, {p} (µs)", list(where.values()),
                   pair_of([(f"echo_{p}_us", w) for w in where]), True) for p in ("p50", "p99")]
    return page(640, *panels)


def bulk(results, plan):
    cases = [(c, d, s) for c in CIPHERS for d in plan.directions for s in plan.streams]
    labels = [f"{c.split('-')[0]}\\n{d}, {s}" for c, d, s in cases]
    least = FloorAsServer(results)
    cpu = pair_of([("bulk_cpu", *case) for case in cases])
    cpu.append(("HAProxy + 2 × cipher", FLOOR, [("floor", (c, s)) for c, _, s in cases]))
    return page(640, bars(least, "CPU seconds per GiB", labels, cpu),
                bars(results, "Throughput (MiB/s)", labels, pair_of([("bulk_mib_per_second", *c) for c in cases])))


class FloorAsServer:
    """Results with one more server, whose figures are computed."""

    def __init__(self, results):
        self.results = results

    def median(self, server, name):
        return floor(self.results, *name) if server == "floor" else self.results.median(server, name)

    def range(self, server, name):
        return (self.median(server, name),) * 2 if server == "floor" else self.results.range(server, name)


def write(folder, results, plan):
    os.makedirs(folder, exist_ok=True)
    for name, draw in {"fleet": fleet, "login": login, "open": opens, "echo": echo, "bulk": bulk}.items():
        script = draw(results, plan)
        if script:
            gnuplot(os.path.join(folder, f"{name}.svg"), script)
