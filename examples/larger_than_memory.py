"""An image larger than memory, filtered through dask: 6 GB in under 2 GB, with the bits that NumPy gives.

The image is made when it is read, row by row, as a file would be; each block of the result is reduced to its CRC, where a real
pipeline would store it.  Then the same blocks are computed one after another by `dwconv.depthwise_conv2d` from rows cut by hand,
and their CRCs compared.  The limit is the system's own (RLIMIT_DATA, on Linux): beyond it an allocation fails.

    python examples/larger_than_memory.py [--gigabytes 6] [--limit 2] [--threads 2]

Needs the extra `dask`; takes minutes for 6 GB.
"""

import argparse
import pathlib
import re
import resource
import time
import zlib

import dask.array as da
import numpy as np

import dwconv
import dwconv.dask

WIDTH, CHANNELS, GB = 8192, 3, 1e9
BLOCK = 8_000_000  # bytes of a chunk; a thread needs a handful of them


class Picture:
    """An image of random pixels, made anew from its row numbers whenever rows are read."""

    dtype, ndim = np.dtype(np.float32), 3

    def __init__(self, height):
        self.shape = height, WIDTH, CHANNELS

    def __getitem__(self, index):
        rows = range(self.shape[0])[index[0]]
        pixels = np.empty((len(rows), WIDTH, CHANNELS), self.dtype)
        for row, line in zip(rows, pixels, strict=True):
            np.random.default_rng(row).random(out=line, dtype=self.dtype)
        return pixels[:, index[1], index[2]]


def crc(block):
    """The CRC-32 of a block's bits, as an array of the block's dimensions."""
    return np.full((1,) * block.ndim, zlib.crc32(np.ascontiguousarray(block)), np.uint32)


def main(gigabytes, limit, threads):
    """Filters, compares and prints."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * GB),) * 2)
    row = WIDTH * CHANNELS * Picture.dtype.itemsize
    height, step = round(gigabytes * GB / row), BLOCK // row
    picture = Picture(height)
    kernel = np.outer(*2 * [np.array([1, 4, 6, 4, 1], np.float32) / 16])  # a blur, the same for every channel
    half = len(kernel) // 2

    start = time.perf_counter()
    x = da.from_array(picture, chunks=(step, -1, -1), name=False)
    y = dwconv.dask.depthwise_conv2d(x, kernel, padding="same")
    found = y.map_blocks(crc, chunks=(1, 1, 1), dtype=np.uint32).compute(num_workers=threads).ravel()
    # not getrusage: what the process that started this one had counts there
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
    print(f"{y.nbytes / GB:.2f} GB filtered in {time.perf_counter() - start:.0f} s, with a peak of {peak / GB:.2f} GB resident")

    same = 0
    for code, first in zip(found, range(0, height, step), strict=True):
        last = min(first + step, height)
        low, high = max(first - half, 0), min(last + half, height)  # what is not there is padding
        rows = dwconv.depthwise_conv2d(picture[low:high, :, :], kernel,
                                       padding=((low - (first - half), last + half - high), (half, half)))
        same += crc(rows).item() == code
    print(f"{same} of {len(found)} blocks have NumPy's bits")
    if same != len(found):
        raise SystemExit("the bits differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=6, help="size of the image (%(default)s)")
    parser.add_argument("--limit", type=float, default=2, help="memory that the process may allocate, in GB (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="blocks at a time (%(default)s)")
    arguments = parser.parse_args()
    main(arguments.gigabytes, arguments.limit, arguments.threads)
