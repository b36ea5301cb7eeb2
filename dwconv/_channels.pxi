# cython: language_level=3
"""channels_last in place: vectors along the channels.

    x (N, H, W, C), y (N, OH, OW, C*M)

Part of _kernels.pyx.  One task is an image, a row phase, a band of rows and a group of blocks of channels.

Refused here: argument checks, pixels whose channels have gaps, scratch beyond SCRATCH_BYTES a worker (packed weights).
"""


cdef inline void channel_blocks(const dw_geometry* g, const real* x, const real* w, const real* bias, real* y, Py_ssize_t r0,
                                Py_ssize_t r1, Py_ssize_t first, Py_ssize_t blocks, Py_ssize_t channels) noexcept nogil:
    if real is float:
        channel_blocks_f32(g, x, w, bias, y, r0, r1, first, blocks, channels)
    else:
        channel_blocks_f64(g, x, w, bias, y, r0, r1, first, blocks, channels)


cdef inline void pack_weights(const dw_geometry* g, const real* w, const real* bias, Py_ssize_t first, Py_ssize_t blocks,
                              Py_ssize_t channels, bint wraps, real* packed) noexcept nogil:
    if real is float:
        pack_weights_f32(g, w, bias, first, blocks, channels, wraps, packed)
    else:
        pack_weights_f64(g, w, bias, first, blocks, channels, wraps, packed)


cdef void channel_task(const Plan* shared, Py_ssize_t task, const real* x, const real* w, const real* bias, real* y, bint wraps,
                       real* packed, Py_ssize_t numbers) noexcept nogil:
    """One image, one row phase, one band of rows, one group of channel blocks; all column phases.  packed: the worker's
    scratch for weights, of whose numbers the last says which group's they are; or NULL."""
    cdef Plan p = shared[0]
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t group = task % p.groups, band = task // p.groups % p.bands
    cdef Py_ssize_t fh = task // (p.groups * p.bands) % p.rows.phases, n = task // (p.groups * p.bands * p.rows.phases)
    cdef Py_ssize_t blocks = p.blocks, first, end, rows, r0, r1, row0, fw
    cdef Phase cols
    x += n * p.xn
    y += n * p.yn + fh * p.yh
    enter_rows(&p, fh, &rows)
    r0, r1 = band_row(rows, band, p.bands), band_row(rows, band + 1, p.bands)
    first, end = blocks * group // p.groups, blocks * (group + 1) // p.groups
    if packed:
        if packed[numbers - 1] != group + 1:
            pack_weights(&p.geometry, w, bias, p.start + first * lanes, end - first, p.channels, wraps, packed)
            packed[numbers - 1] = group + 1
        w = packed
        p.geometry.packed = 1
    row0 = p.geometry.x0
    for fw in range(p.cols.phases):
        cols = make_phase(&p.cols, fw)
        p.geometry.x0 = row0 + cols.first * p.xw
        p.geometry.col_lo, p.geometry.col_hi, p.geometry.cols = cols.lo, cols.hi, cols.out
        channel_blocks(&p.geometry, x, w, bias, y + fw * p.yw, r0, r1, p.start + first * lanes, end - first, p.channels)


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


cdef inline Py_ssize_t packed_bytes(const Plan* p, Py_ssize_t size) noexcept nogil:
    """Of scratch of a worker for packed weights and bias, see pack_weights of _tiles.h, whole vectors, and one for channel_task;
    0 where tiles use weights as they lie, or pack them themselves, some at a time."""
    cdef Py_ssize_t blocks = dw_ceil_div(p.channels, lanes_of(size)) + 1     # at most
    cdef Py_ssize_t total = ((p.rows.taps * p.cols.taps + 1) * blocks + 1) * DW_VECTOR_BYTES
    if (not DW_VECTOR_BYTES or p.repeat > 1 or p.channels * size < DW_VECTOR_BYTES or total > SCRATCH_BYTES
            or not dw_takes_all(p.rows.taps, p.cols.taps, p.rows.step, p.cols.step)):
        return 0
    return total


cdef void run_channels(Plan* p, const real* x, const real* w, const real* bias, real* y, real* packed,
                       int workers) noexcept nogil:
    """packed: packed_bytes of scratch for each worker, or NULL."""
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t task, tasks, worker, row = 0, size = packed_bytes(p, sizeof(real)) // <Py_ssize_t> sizeof(real)
    cdef bint wraps = dw_wraps(p.rows.taps, p.cols.taps, p.rows.step, p.cols.step, p.geometry.stream), all_blocks
    fill_geometry(p)
    set_blocks(p, x, p.xw | p.xh | p.xn, (4 if p.cols.step == 1 else 2) if wraps else 8, wraps)
    p.geometry.repeat = p.repeat
    p.geometry.sw, p.geometry.xw, p.geometry.yw = p.cols.step, p.cols.dilation * p.xw, p.cols.phases * p.yw
    all_blocks = dw_takes_all(p.rows.taps, p.cols.taps, p.rows.step, p.cols.step)
    if p.repeat > 1 or not all_blocks:     # each block goes over the rows of a band
        row = sizeof(real) * (p.rows.stride * p.cols.size * p.channels // p.repeat + p.cols.out * p.channels)
        if all_blocks and row * dw_ceil_div(p.rows.out, p.rows.phases) <= 4 * BAND_BYTES:
            row = 0           # 3x3 in L2: no faster in bands (14x14x128 to 256: 0.97)
    p.bands = dw_min(band_count(p, row, p.images * p.rows.phases, workers),
                     dw_ceil_div(dw_ceil_div(p.rows.out, p.rows.phases), DW_ANY_ROWS))     # none is empty, see band_row
    p.groups = 1
    if share_channels(p, p.channels // (4 * lanes), workers):
        p.bands = 1
    tasks = p.images * p.rows.phases * p.bands
    if tasks < workers:     # workers write to one row then, where prefetching takes lines from each other's cache
        p.groups = even_shares(1, p.channels // lanes, tasks, workers)
    p.groups = for_rounds(p, p.groups, p.channels // lanes, tasks, workers)
    tasks *= p.groups
    for worker in range(workers if packed else 0):
        packed[(worker + 1) * size - 1] = 0
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                channel_task(p, task, x, w, bias, y, wraps, packed, size)
        else:     # each packs its own: what another core has just written comes slowly (56x56x128 at stride 2: 27 us for 24)
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                channel_task(p, task, x, w, bias, y, wraps, packed + threadid() * size if packed else packed, size)
