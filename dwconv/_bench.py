"""python -m dwconv bench: times shapes, alone or beside other libraries, and says which share of the machine's limit they reach.

Arguments, the table, --json and --plot; what is timed is in _bench_cases.py, the other libraries in _bench_peers.py.
Refused: a time for a result that differs from what dwconv computes in float64; files replaced without --force.
matplotlib and tqdm (the `demo` extra) and the other libraries are imported when asked for, never before.
"""

import json
import math
import pathlib
import re
import sys

import numpy as np

from . import _bench_peers, _runtime
from ._bench_cases import LAYOUTS, PASSES, SHAPES, Case, Machine, chosen, measure, repeated

AGREE = {"float32": 1e-4, "float64": 1e-10}  # largest difference, in units of the largest result
NO_LIMIT = 16384  # bytes of a pass below which a call is most of the time, and a share of the limit says nothing


# ---- one row ----

def row(case, machine, peers, seconds, complain):
    """What is known of a case as a dict; `peers` that cannot do it or differ have no time."""
    want, runs, wrong = case.compute("float64"), {}, []
    for name in ("dwconv", *peers):
        try:
            call, as_numpy = _bench_peers.PEERS[name](case) if name != "dwconv" else (case.dwconv, np.asarray)
            got = as_numpy(call())
        except Exception as error:  # whatever a library raises for what it cannot do
            if name == "dwconv":
                raise
            complain(f"{name} left out: {str(error)[:200]}")
            continue
        error = float(np.abs(got - want).max() / max(np.abs(want).max(), 1)) if got.shape == want.shape else math.inf
        if error <= AGREE[case.dtype]:
            runs[name] = repeated(call)
        else:
            wrong.append(name)
            complain(f"{case.shape.name} {case.layout}: {name} WRONG RESULT, off by {error:.1e} of the largest")
    best = measure({**runs, "copy": machine.copy(case.bytes)}, seconds)
    limit, limited_by = machine.limit(case, best.pop("copy"))
    return {
        "shape": case.shape.name, "pass": case.direction, "layout": case.layout, "dtype": case.dtype, "workers": case.workers,
        "bytes": case.bytes, "multiply_adds": case.multiply_adds, "limit_seconds": limit, "limited_by": limited_by,
        "seconds": best, "wrong": wrong,
    }


def share(row):
    """Of the limit, or None where it means nothing."""
    return row["limit_seconds"] / row["seconds"]["dwconv"] if "dwconv" in row["seconds"] and row["bytes"] >= NO_LIMIT else None


def ratio(row):
    """Time of the fastest other library by dwconv's, or None."""
    others = [seconds for name, seconds in row["seconds"].items() if name != "dwconv"]
    return min(others) / row["seconds"]["dwconv"] if others and "dwconv" in row["seconds"] else None


# ---- what is printed, written and drawn ----

def columns(limit, peers):
    """(title, format, function of a row) of the table's columns."""
    def time_of(name):
        return lambda r: r["seconds"][name] * 1e6 if name in r["seconds"] else None

    def rate(amount):
        return lambda r: amount(r) / r["seconds"]["dwconv"] / 1e9 if "dwconv" in r["seconds"] else None

    named = [("shape", f"<{max(map(len, SHAPES))}", lambda r: r["shape"]), ("layout", "<14", lambda r: r["layout"])]
    if limit:
        named += [("bytes", ">11,", lambda r: r["bytes"]), ("multiply-adds", ">14,", lambda r: r["multiply_adds"]),
                  ("limit us", ">10.1f", lambda r: r["limit_seconds"] * 1e6), ("limited by", "<10", lambda r: r["limited_by"]),
                  ("time us", ">10.1f", time_of("dwconv")), ("reached", ">7.0%", share)]
    else:
        named += [("time us", ">10.1f", time_of("dwconv")), ("GFLOP/s", ">7.1f", rate(lambda r: 2 * r["multiply_adds"])),
                  ("GB/s", ">6.1f", rate(lambda r: r["bytes"])), ("of limit", ">8.0%", share)]
    named += [(f"{peer} us", f">{max(10, len(peer) + 3)}.1f", time_of(peer)) for peer in peers]
    return named + ([("best/dwconv", ">11.2f", ratio)] if peers else [])


def line(columns, row=None):
    """The table's head, or one row of it; what is not known is a dash."""
    cells = []
    for title, form, value in columns:
        cell = title if row is None else value(row)
        width = re.match(r"[<>]\d+", form)[0]
        cells.append(format("-" if cell is None else cell, form if row and cell is not None else width))
    return "  ".join(cells).rstrip()


def mean(values):
    """Geometric mean of those that are known, or None."""
    logs = [math.log(value) for value in values if value]
    return math.exp(sum(logs) / len(logs)) if logs else None


def draw(rows, path):
    """GFLOP/s of every row, a bar for each library, a black tick at the limit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in ("dwconv", *_bench_peers.PEERS) if any(name in r["seconds"] for r in rows)]
    figure = Figure(figsize=(10, 1.5 + len(rows) * (0.18 + 0.14 * len(names))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    flops, at = [2e-9 * r["multiply_adds"] for r in rows], np.arange(len(rows))
    height = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        rates = [f / r["seconds"].get(name, math.inf) for f, r in zip(flops, rows, strict=True)]
        axes.barh(at + (k - (len(names) - 1) / 2) * height, rates, height, label=name)
    limits = [f / r["limit_seconds"] for f, r in zip(flops, rows, strict=True)]
    axes.vlines(limits, at - 0.45, at + 0.45, "black", label="limit of the machine")
    axes.set_yticks(at, [f"{r['shape']}, {r['layout']}" for r in rows])
    axes.set(xlabel="GFLOP/s, padding not counted", xscale="log", ylim=(len(rows) - 0.4, -0.6),
             title="{pass}, {dtype}, {workers} worker(s)".format(**rows[0]) + f", {_runtime.kernels_name} kernels")
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=100)


def check_output(path, force):
    """Raises, before anything is computed, if `path` is a file and not to be replaced, or its folder is not there."""
    if path.is_file() and not force:
        raise FileExistsError(f"{path} exists; --force replaces it")
    if path.is_dir() or not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: {'it is a' if path.is_dir() else 'there is no'} folder")


def check_plot(path):
    """Raises if matplotlib is missing or does not write such files."""
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"--plot writes {', '.join(formats)}, by the file's name; got {path}")


def progress(cells):
    """The cells under a progress bar on a terminal's stderr, and a print that does not tear it; without tqdm, no bar."""
    try:
        import tqdm
    except ImportError:
        bar = None
    else:
        bar = tqdm.tqdm(cells, leave=False, disable=not (sys.stderr and sys.stderr.isatty()))

    def write(text, **options):
        if bar is not None:
            bar.clear()
        print(text, flush=True, **options)
    return cells if bar is None else bar, write


def add_arguments(parser):
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"part of a name, of {', '.join(SHAPES)}; default: all")
    parser.add_argument("--shape", action="append", default=[], metavar='"1x56x56x128 k3 s2 d1 m1"',
                        help="a shape of your own: N x H x W x C, kernel (k3, k1x31), stride, dilation, multiplier; repeatable")
    parser.add_argument("--pass", dest="direction", choices=PASSES, default="forward")
    parser.add_argument("--layout", choices=("both", *LAYOUTS), default="both")
    parser.add_argument("--dtype", choices=tuple(AGREE), default="float32")
    parser.add_argument("--workers", type=int, default=1, help="threads at most, -1 for all CPUs; default: 1")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each time in the table; default: 0.3")
    parser.add_argument("--against", default="", metavar="LIBRARIES", help=f"some of {','.join(_bench_peers.PEERS)}")
    parser.add_argument("--limit", action="store_true", help="print bytes, multiply-adds, limit, and what is reached of it")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all numbers there; -: to stdout, and no table")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="draw GFLOP/s and limits (needs the demo extra)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def checked(options):
    """(shapes, peers) of the arguments; ValueError, OSError or ImportError for what cannot be done, before anything is."""
    if not 0 < options.seconds < 3600:
        raise ValueError(f"--seconds must be more than 0 and less than 3600, got {options.seconds}")
    peers = [name for name in options.against.split(",") if name]
    for name in peers:
        if name not in _bench_peers.PEERS:
            raise ValueError(f"--against takes some of {','.join(_bench_peers.PEERS)}; got {name!r:.80}")
    _runtime.check_workers(options.workers)
    shapes = chosen(options.names, options.shape)
    for shape in shapes:
        shape.plan("channels_last")
    if options.json and str(options.json) != "-":
        check_output(options.json, options.force)
    if options.plot:
        check_output(options.plot, options.force)
        check_plot(options.plot)
    return shapes, peers


def run(options, config):
    """The command; `config` is what show_config knows, for --json.  Returns the exit code."""
    shapes, asked = checked(options)
    workers, quiet = _runtime.check_workers(options.workers), str(options.json) == "-"
    missing = {name: _bench_peers.missing(name) for name in asked}
    peers = [name for name in asked if not missing[name]]
    layouts = LAYOUTS if options.layout == "both" else (options.layout,)
    cells, write = progress([(shape, layout) for layout in layouts for shape in shapes])
    said = set()

    def complain(text):
        if text not in said:  # what a library does not have is said once, not for every shape
            said.add(text)
            write(f"python -m dwconv bench: {text}", file=sys.stderr)

    def show(text):
        if not quiet:
            write(text)

    for name in asked:
        if missing[name]:
            complain(f"{name} left out: {missing[name]}")
    machine, table, rows = Machine(options.dtype, workers, options.seconds), columns(options.limit, peers), []
    copies = machine.copy_rates()
    show(f"{options.direction}, {options.dtype}, {workers} worker(s), {_runtime.kernels_name} kernels\n"
         f"this machine: {2e-9 * machine.peak:.1f} GFLOP/s in registers; copies at "
         + ", ".join(f"{rate / 1e9:.1f} GB/s of {text}" for text, rate in copies.items()) + f"\n\n{line(table)}")
    for shape, layout in cells:
        case = Case(shape, options.direction, layout, options.dtype, workers)
        rows.append(row(case, machine, peers, options.seconds, complain))
        show(line(table, rows[-1]))
    if len(rows) > 1:
        reached, faster = mean(map(share, rows)), mean(map(ratio, rows))
        show(f"geometric mean: of limit {'-' if reached is None else f'{reached:.0%}'}"
             + (f", best/dwconv {faster:.2f}" if faster else ""))
    if any((share(r) or 0) > 1.1 for r in rows):
        complain("a share well above 100 %: other work ran while the limit was measured, so none of them counts")
    if options.json:
        measured = {"peak_flops": 2 * machine.peak, "copy_bytes_per_second": copies, "rows": rows}
        text = json.dumps({"config": config, **measured}, indent=1)
        print(text) if quiet else options.json.write_text(text + "\n", encoding="utf-8")
    if options.plot:
        draw(rows, options.plot)
    return 1 if any(r["wrong"] for r in rows) else 0
