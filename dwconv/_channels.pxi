# cython: language_level=3
"""channels_last in place: vectors along the channels.

    x (N, H, W, C), y (N, OH, OW, C*M)

Part of _kernels.pyx.  One task is an image, a row phase, a band of rows and a group of blocks of channels.

Refused here: argument checks, pixels whose channels have gaps, scratch beyond SCRATCH_BYTES a call (packed weights).
"""


cdef inline void channel_blocks(const dw_geometry* g, const real* x, const real* w, const real* bias, real* y, Py_ssize_t r0,
                                Py_ssize_t r1, Py_ssize_t first, Py_ssize_t blocks, Py_ssize_t channels) noexcept nogil:
    if real is float:
        channel_blocks_f32(g, x, w, bias, y, r0, r1, first, blocks, channels)
    else:
        channel_blocks_f64(g, x, w, bias, y, r0, r1, first, blocks, channels)


cdef void channel_task(const Plan* shared, Py_ssize_t task, const real* x, const real* w, const real* bias,
                       real* y) noexcept nogil:
    """One image, one row phase, one band of rows, one group of channel blocks; all column phases."""
    cdef Plan p = shared[0]
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t group = task % p.groups, band = task // p.groups % p.bands
    cdef Py_ssize_t fh = task // (p.groups * p.bands) % p.rows.phases, n = task // (p.groups * p.bands * p.rows.phases)
    cdef Py_ssize_t blocks = p.blocks, first, end, rows, r0, r1, row0, fw
    cdef Phase cols
    x += n * p.xn
    y += n * p.yn + fh * p.yh
    enter_rows(&p, fh, &rows)
    r0, r1 = rows * band // p.bands, rows * (band + 1) // p.bands
    first, end = blocks * group // p.groups, blocks * (group + 1) // p.groups
    row0 = p.geometry.x0
    for fw in range(p.cols.phases):
        cols = make_phase(&p.cols, fw)
        p.geometry.x0 = row0 + cols.first * p.xw
        p.geometry.col_lo, p.geometry.col_hi, p.geometry.cols = cols.lo, cols.hi, cols.out
        channel_blocks(&p.geometry, x, w + (first * lanes * p.rows.taps * p.cols.taps if p.geometry.packed else 0), bias,
                       y + fw * p.yw, r0, r1, p.start + first * lanes, end - first, p.channels)


cdef inline void set_blocks(Plan* p, const real* x, Py_ssize_t strides, Py_ssize_t least, bint wraps) noexcept nogil:
    """Blocks of channels: all but the first and the last aligned at every pixel of x, whose strides are or-ed, if that can be.

    NumPy's arrays are aligned to 16 bytes, so that most vectors lie across two cache lines and cost two loads.  That pays from
    `least` vectors of channels on.  wraps: the tiles take the last and the first channels of a pixel as one block (112x112x96
    at stride 2: 99 us; all blocks across lines 118), else the first and the last block overlap their neighbours."""
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    p.start = 0
    if p.repeat == 1 and p.channels >= least * lanes and strides % lanes == 0:
        p.start = -(<Py_ssize_t> (<size_t> x // sizeof(real)) % lanes)
    p.blocks = dw_ceil_div(p.channels - (0 if wraps else p.start), lanes)


cdef inline bint share_lines(Py_ssize_t a, Py_ssize_t b, Py_ssize_t pitch) noexcept nogil:
    """Whether what lies `pitch` bytes apart, a power of two, from addresses a and b on goes to the same sets of the cache."""
    cdef Py_ssize_t apart = (a - b) & (pitch - 1)
    return apart < 128 or apart > pitch - 128


cdef inline Py_ssize_t packed_bytes(const Plan* p, Py_ssize_t size, Py_ssize_t x, Py_ssize_t w, Py_ssize_t y) noexcept nogil:
    """Of scratch for weights block of channels by block, all taps of each; 0 where they are used as they lie.

    x, w, y: addresses.

    Taps a multiple of 512 bytes apart share sets with each other, and where the addresses want it with the pixels, and a
    tile for 16 registers loads all of them for each block of channels (28x28x256: 1.2 times as fast packed; 0.95 where they
    share none).  In fewer than 32 outputs, four tiles, each is read too seldom for that."""
    cdef Py_ssize_t total = 9 * (p.channels * size + DW_VECTOR_BYTES), pitch = gcd(4096, p.ww * size)
    if (DW_VECTOR_BYTES != 32 or p.repeat > 1 or p.rows.taps != 3 or p.cols.taps != 3 or p.rows.step != p.cols.step
            or p.cols.step > 2 or pitch < 512 or total > SCRATCH_BYTES or p.images * p.rows.out * p.cols.out < 32):
        return 0
    return total if share_lines(w, x, pitch) or share_lines(w, y, pitch) else 0


cdef inline void pack_weights(const Plan* p, const real* w, real* packed) noexcept nogil:
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), k, i, at
    for k in range(p.blocks):
        at = dw_max(dw_min(p.start + k * lanes, p.channels - lanes), 0)
        for i in range(p.rows.taps):
            if real is float:
                copy_pixels_f32(w + at + i * p.wh, p.cols.taps, p.ww, lanes, packed, False)
            else:
                copy_pixels_f64(w + at + i * p.wh, p.cols.taps, p.ww, lanes, packed, False)
            packed += p.cols.taps * lanes


cdef void run_channels(Plan* p, const real* x, const real* w, const real* bias, real* y, real* packed,
                       int workers) noexcept nogil:
    """packed: packed_bytes of scratch, or NULL."""
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t task, tasks
    cdef bint wraps = dw_wraps(p.rows.taps, p.cols.taps, p.rows.step, p.cols.step, p.geometry.stream)
    fill_geometry(p)
    set_blocks(p, x, p.xw | p.xh | p.xn, (4 if p.cols.step == 1 else 2) if wraps else 8, wraps)
    if packed:
        pack_weights(p, w, packed)
        w = packed
        p.geometry.packed, p.geometry.wh, p.geometry.ww = 1, p.cols.taps * lanes, lanes
    p.geometry.repeat = p.repeat
    p.geometry.sw, p.geometry.xw, p.geometry.yw = p.cols.step, p.cols.dilation * p.xw, p.cols.phases * p.yw
    p.bands = band_count(p, sizeof(real) * (p.rows.stride * p.cols.size * p.channels // p.repeat + p.cols.out * p.channels),
                         p.images * p.rows.phases, workers)
    p.groups = 1
    if share_channels(p, p.channels // (4 * lanes), workers):
        p.bands = 1
    tasks = p.images * p.rows.phases * p.bands
    if tasks < workers:     # workers write to one row then, where prefetching takes lines from each other's cache
        p.groups = even_shares(1, p.channels // lanes, tasks, workers)
    p.groups = for_rounds(p, p.groups, p.channels // lanes, tasks, workers)
    tasks *= p.groups
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                channel_task(p, task, x, w, bias, y)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                channel_task(p, task, x, w, bias, y)
