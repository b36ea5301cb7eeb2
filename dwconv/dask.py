"""`depthwise_conv2d` for dask arrays: lazy, one task per block of the result, the bits of the NumPy call.

Each block of the result is planned from its own place: the input range that its windows cover is cut out of as many chunks
as it takes, and what hangs over the image's border becomes that block's padding.  `map_overlap` would serve neither strides
nor chunks smaller than the halo.  The bits are those of one call on everything, since an output is one chain of
multiply-adds wherever its block was cut, and padding is never multiplied.

Refused here: arrays that are not dask's (the function of the same name in dwconv takes them), chunks of unknown size,
chunks that are not NumPy arrays.  Nothing is computed while the graph is made.  Needs the extra `dask`.
"""

import bisect
import functools
import itertools
import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

try:
    import dask.array as da
    from dask.array.chunk import getitem
    from dask.array.utils import meta_from_array
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph
except ImportError as error:
    raise ImportError('dwconv.dask needs dask: pip install "dwconv[dask]"') from error

from . import _plan, activations, functional
from ._arrays import as_array, common_dtypes

__all__ = ["depthwise_conv2d"]


def depthwise_conv2d(x, kernel, bias=None, *, strides=1, padding="valid", dilation_rate=1, data_format="channels_last",
                     activation=None):
    """Depthwise 2-D convolution of a dask array: `dwconv.depthwise_conv2d`, lazily and block by block.

    Parameters
    ----------
    x : dask.array.Array, shape (N, H, W, C), or (N, C, H, W) for channels_first; without N for one image
        Images of any real dtype, in chunks of any size along every axis.
    kernel : array_like or dask.array.Array, shape (kh, kw, C, M), (kh, kw, C) or (kh, kw)
        The filters.  What is not a dask array is copied into the graph.
    bias : array_like or dask.array.Array, shape (C*M,), optional
        Added to the output channels.
    strides, padding, dilation_rate, data_format
        As in `dwconv.depthwise_conv2d`.
    activation : str or callable, optional
        As in `dwconv.depthwise_conv2d`, but a function of your own is applied to each block, so it must be elementwise.

    Returns
    -------
    dask.array.Array
        Of the shape and dtype of the NumPy call, and of its bits when computed.  A chunk holds the outputs whose windows
        have their middles in one chunk of x, so that with padding "same" and strides of 1 rows and columns keep their
        chunks; images and channels always do, but that an axis which "softmax" and its like sum over becomes one chunk.

    Raises
    ------
    ValueError, TypeError
        While the graph is made, as `dwconv.depthwise_conv2d` does and in the same words; besides, TypeError for an x that is
        not a dask array of NumPy arrays, and ValueError for chunks of unknown size.

    Notes
    -----
    A block is computed by one thread (`workers=1`), since dask's scheduler runs several at a time.  It needs memory for its
    input range, its result, and the parts of neighbouring chunks that its windows reach.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import dwconv.dask
    >>> x = da.ones((1, 1000, 1000, 3), chunks=(1, 250, 1000, 3), dtype="float32")
    >>> y = dwconv.dask.depthwise_conv2d(x, np.ones((5, 5), np.float32), strides=2, padding="same")
    >>> y.chunks
    ((1,), (125, 125, 125, 125), (500,), (3,))
    >>> float(y[0, 250, 250, 0].compute())
    25.0
    """
    if not isinstance(x, da.Array):
        raise TypeError(f"x must be a dask array, not {type(x).__name__}: dwconv.depthwise_conv2d takes arrays in memory")
    data_format = _plan.text("data_format", data_format)
    given = {name: a if isinstance(a, da.Array) else as_array(name, a)
             for name, a in (("x", x), ("kernel", kernel), ("bias", bias)) if a is not None}
    for name, a in given.items():
        if isinstance(a, da.Array) and type(meta_from_array(a)) is not np.ndarray:
            raise TypeError(f"{name} must be a dask array of NumPy arrays, not of {type(meta_from_array(a)).__name__}")
        if any(math.isnan(n) for n in a.shape):
            raise ValueError(f"{name} has chunks of unknown size, shape {a.shape}: call compute_chunk_sizes() on it first")
    dtype, _ = common_dtypes([np.empty(0, a.dtype) for a in given.values()])
    plan = _plan.forward(x.shape, given["kernel"].shape, _plan.hashable("strides", strides), _plan.hashable("padding", padding),
                         _plan.hashable("dilation_rate", dilation_rate), data_format)
    per_output = plan.kernel_shape[2:]
    if bias is not None and given["bias"].shape != per_output:
        raise ValueError(f"bias must have shape {per_output}, one number per output channel, got {given['bias'].shape}")
    if activation is not None:
        activation = activations.get(activation)  # here, since other processes may lack a name that was registered in this one
        activations._fused(activation)  # refuses what it cannot take
    return _lazy(x, given["kernel"], given.get("bias"), plan, dtype, data_format, activation)


def _lazy(x, kernel, bias, plan, dtype, data_format, activation):
    """The array of all blocks: one task for each, besides those that cut its pieces out of x."""
    layout = ("NCHW" if data_format == "channels_first" else "NHWC")[4 - x.ndim:]
    channels = x.shape[layout.index("C")]
    multiplier = plan.kernel_shape[2] // channels
    shape = plan.out_shape[4 - x.ndim:]
    if 0 in shape:
        return da.empty(shape, dtype=dtype, chunks=shape)
    steps = {"N": (len(x), 1, 1, 0), "C": (channels, 1, 1, 0)}  # outputs, span of a window, stride, padding before
    steps |= {name: (out, (taps - 1) * dilation + 1, stride, before)
              for name, (_, out, taps, stride, dilation, before) in (("H", plan.rows), ("W", plan.cols))}
    whole = _whole_axes(activation, x.ndim)
    axes = [_blocks(chunks, *steps[name], i in whole)
            for i, (name, chunks) in enumerate(zip(layout, x.chunks, strict=True))]
    sizes = [tuple(block[0] * (multiplier if name == "C" else 1) for block in axis)
             for name, axis in zip(layout, axes, strict=True)]

    per_channel = tuple(block[0] for block in axes[layout.index("C")])
    kernel = _chunked(kernel, *((n,) for n in kernel.shape[:2]), per_channel, (multiplier,))
    bias = None if bias is None else _chunked(bias, tuple(n * multiplier for n in per_channel))
    function = functools.partial(_convolve, strides=(plan.rows[3], plan.cols[3]), dilation_rate=(plan.rows[4], plan.cols[4]),
                                 data_format=data_format, activation=activation)
    arrays = [x, kernel] if bias is None else [x, kernel, bias]
    token = tokenize([a.name for a in arrays], plan, data_format, activation)
    name, graph, cuts = f"depthwise_conv2d-{token}", {}, itertools.count()

    def piece(place):
        """The key of a piece of x, given (chunk, start, stop, size of the chunk) for each axis."""
        key = (x.name, *(chunk for chunk, *_ in place))
        if all((start, stop) == (0, size) for _, start, stop, size in place):
            return key
        cut = (f"cut-{token}", next(cuts))
        graph[cut] = (getitem, key, tuple(slice(start, stop) for _, start, stop, _ in place))
        return cut

    for index in itertools.product(*(range(len(axis)) for axis in axes)):
        blocks = dict(zip(layout, (axis[i] for axis, i in zip(axes, index, strict=True)), strict=True))
        channel = index[layout.index("C")]
        graph[(name, *index)] = (
            function, _nested(piece, [pieces for _, pieces, _ in blocks.values()]),
            (kernel.name, 0, 0, channel, 0)[: 1 + kernel.ndim], bias if bias is None else (bias.name, channel),
            *blocks["H"][2], *blocks["W"][2])
    graph = HighLevelGraph.from_collections(name, graph, dependencies=arrays)
    return da.Array(graph, name, tuple(sizes), meta=np.empty((0,) * x.ndim, dtype))


def _whole_axes(activation, ndim):
    """The axes that an activation needs in one piece: those it sums over, and any behind them, on which a sum's bits depend."""
    if isinstance(activation, activations.Softmax):
        axis = activation.get_config()["axis"]
        return range(min(normalize_axis_index(i, ndim) for i in (axis if isinstance(axis, list) else [axis])), ndim)
    return (ndim - 1,) if activation in (activations.softmax, activations.log_softmax, activations.sparsemax) else ()


def _blocks(chunks, outputs, span, stride, before, whole):
    """Along one axis, a block's (outputs, pieces, (padding before, padding after)); a piece is (chunk, start, stop, its size).

    Output o has the window of `span` inputs from o*stride - before on, and belongs to the chunk where that has its middle.
    """
    edges = list(itertools.accumulate(chunks, initial=0))
    inner = [] if whole else [edge for edge in edges if 0 < edge < edges[-1]]
    ends = {-(-(edge + before - (span - 1) // 2) // stride) for edge in inner}
    blocks = []
    for first, last in itertools.pairwise(sorted({0, outputs, *(end for end in ends if 0 < end < outputs)})):
        low, high = first * stride - before, (last - 1) * stride - before + span
        start, stop = (min(max(n, 0), edges[-1]) for n in (low, high))
        pieces, chunk = [], bisect.bisect_right(edges, start) - 1
        while start < stop and edges[chunk] < stop:
            if chunks[chunk]:
                pieces.append((chunk, max(start - edges[chunk], 0), min(stop - edges[chunk], chunks[chunk]), chunks[chunk]))
            chunk += 1
        pads = (start - low, high - stop) if pieces else (high - low, 0)  # or all of it lies in the padding
        blocks.append((last - first, pieces or [(0, 0, 0, chunks[0])], pads))
    return blocks


def _chunked(a, *chunks):
    """The kernel or the bias as a dask array in those chunks, of which a kernel may lack the last ones."""
    chunks = chunks[: a.ndim]
    return a.rechunk(chunks) if isinstance(a, da.Array) else da.from_array(np.array(a), chunks)


def _nested(leaf, axes, chosen=()):
    """leaf(one of each axis's pieces), as nested lists with one level per axis: what `np.block` puts together."""
    if len(chosen) == len(axes):
        return leaf(chosen)
    return [_nested(leaf, axes, (*chosen, piece)) for piece in axes[len(chosen)]]


def _convolve(pieces, kernel, bias, top, bottom, left, right, **options):
    """One block of the result."""
    only = pieces
    while isinstance(only, list):
        only = only[0] if len(only) == 1 else None
    x = np.block(pieces) if only is None else only
    return functional.depthwise_conv2d(x, kernel, bias, padding=((top, bottom), (left, right)), workers=1, **options)
