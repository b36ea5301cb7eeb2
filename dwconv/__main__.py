"""python -m dwconv info | demo | bench | selftest: what was built and runs; filters on a photograph; times and limits; checks.

Only what the command line needs; `bench` is in _bench.py.  A command fails with one line on stderr, never a traceback, and exit
code 2 for what it was given, 1 for a result that is wrong and for output that nobody takes, 130 for Ctrl-C.  matplotlib (the
`demo` extra) is imported when a picture is asked for, never before.
"""

import argparse
import os
import pathlib
import sys
import time

import numpy as np

import dwconv
from dwconv import _bench, _oracle, _runtime, _selftest

_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
_BINOMIAL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

# label, filter, options of depthwise_conv2d, whether the result is signed: then 0 is drawn mid-grey
FILTERS = [
    ("blur: binomial 5x5", _BINOMIAL, {}, False),
    ("sharpen 3x3", np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]), {}, False),
    ("Sobel x 3x3", _SOBEL, {}, True),
    ("Sobel y 3x3", _SOBEL.T, {}, True),
    ("Laplacian 3x3", np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]), {}, True),
    ("emboss 3x3", np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), {}, False),
    ("blur 5x5, dilation 4", _BINOMIAL, {"dilation_rate": 4}, False),
    ("blur 5x5, stride 2", _BINOMIAL, {"strides": 2}, False),
]


def exact(image, kernel, strides=1, dilation_rate=1):
    """The same convolution, "same" padding, in float64 and plain NumPy; image (H, W, C), kernel (kh, kw)."""
    kernel = np.broadcast_to(kernel[..., None, None], (*kernel.shape, image.shape[2], 1))
    geometry = {"strides": (strides, strides), "dilation_rate": (dilation_rate, dilation_rate), "padding": "same"}
    return _oracle.conv(image[None].astype(float), kernel, **geometry)[0, ..., 0]


def read_image(path):
    """float32 (H, W, 3) in 0..1: the given picture, or matplotlib's sample photograph."""
    from matplotlib import cbook, image

    if path is None:
        with cbook.get_sample_data("grace_hopper.jpg") as file:
            pixels = image.imread(file, format="jpg")
    else:
        pixels = image.imread(path)
    scale = 255 if pixels.dtype == np.uint8 else 65535 if pixels.dtype == np.uint16 else 1
    pixels = np.atleast_3d(pixels)[:, :, :3].astype(np.float32) / np.float32(scale)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels)


def draw(panels, path):
    """Labelled pictures in a grid, written to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 13.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (label, picture) in zip(figure.subplots(3, 3).flat, panels, strict=True):
        axes.imshow(np.clip(picture, 0, 1))
        axes.set_title(label)
        axes.set_axis_off()
    figure.savefig(path, dpi=80)


def demo(path, output):
    image = read_image(path)
    x = image[None]
    workers = dwconv.get_workers()
    print(f"image {path or 'grace_hopper.jpg of matplotlib'}: x {x.shape} {x.dtype}, channels_last")
    print(f"kernels module {_runtime.kernels_name}, at most {workers} workers")
    panels, worst = [(f"photograph {image.shape[1]} x {image.shape[0]}", image)], 0.0
    for label, kernel, options, signed in FILTERS:
        kernel32 = kernel.astype(np.float32)
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            y = dwconv.depthwise_conv2d(x, kernel32, padding="same", **options)
            seconds.append(time.perf_counter() - start)
        difference = float(np.abs(y[0] - exact(image, kernel, **options)).max())
        worst = max(worst, difference)
        rate = 2 * y.size * kernel.size / min(seconds) / 1e9
        print(f"{label:22s} kernel {kernel.shape} -> y {y.shape}  {min(seconds) * 1e3:7.3f} ms  {rate:6.1f} GFLOP/s  "
              f"{(x.nbytes + y.nbytes) / min(seconds) / 1e9:5.1f} GB/s  largest difference {difference:.1e}")
        panels.append((label, y[0] / 2 + 0.5 if signed else y[0]))
    print(f"largest difference to float64 NumPy over all filters: {worst:.1e}")
    draw(panels, output)
    print(f"wrote {output}")
    return 0 if worst < 1e-4 else 1


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m dwconv", description="Depthwise 2-D convolution for NumPy arrays.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print what was built, what runs and why")
    sub = commands.add_parser("demo", help="run a bank of filters on a photograph and write a picture")
    sub.add_argument("image", nargs="?", type=pathlib.Path, help="a picture; default: matplotlib's sample photograph")
    sub.add_argument("-o", "--output", type=pathlib.Path, help="default: demo.png, which is replaced if it exists")
    sub.add_argument("--force", action="store_true", help="replace any picture that exists")
    _bench.add_arguments(commands.add_parser("bench", help="time shapes, alone or beside other libraries, and their limits"))
    _selftest.add_arguments(commands.add_parser("selftest", help="check random calls of the functions, exactly"))
    options = parser.parse_args(arguments)
    try:
        if options.command == "info":
            dwconv.show_config()
            return 0
        if options.command == "bench":
            return _bench.run(options, dwconv.show_config("dicts"))
        if options.command == "selftest":
            return _selftest.main(options)
        if options.output:
            _bench.check_output(options.output, options.force)
        return demo(options.image, options.output or pathlib.Path("demo.png"))
    except BrokenPipeError:  # for `process`
        raise
    except ImportError as error:
        print(f"python -m dwconv {options.command} needs the demo extra (pip install 'dwconv[demo]'): {error}", file=sys.stderr)
    except (OSError, ValueError, MemoryError, SyntaxError) as error:  # the last: what matplotlib calls a broken PNG
        print(f"python -m dwconv {options.command}: {error}", file=sys.stderr)
    return 2


def process():
    """`main` as a process: a reader that went away, a full disk or Ctrl-C end it with an exit code, never a traceback."""
    try:
        code = main()
        if sys.stdout:  # None where it was closed from the start
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        # what is still buffered goes nowhere, or the interpreter would fail on it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"python -m dwconv: {error}", file=sys.stderr)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(process())
