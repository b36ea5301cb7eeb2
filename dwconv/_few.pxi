# cython: language_level=3
"""channels_last of few channels, at stride 2 along the rows: split into planes in the scratch, for whose rows there are tiles.

    x (N, H, W, C), y (N, OH, OW, C), C of 2 to 4 and less than a vector (kernel gradient: 1, with gaps, too)

Part of _kernels.pyx.  A vector of one pixel's channels would be mostly empty, and flat rows (run_flat) must be parted first, by
more shuffles than it takes to split them.  A task is an image and a tile of outputs: what they see is split, the tiles of
channels_first run over the planes, the results are joined.  The gradients split and join by the same functions.

Refused here: argument checks, pixels with gaps, depth multipliers, scratch beyond SCRATCH_BYTES a worker.
"""

cdef extern from *:
    void split_pixels_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void split_pixels_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    void join_pixels_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) nogil
    void join_pixels_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) nogil


cdef inline Py_ssize_t pitch_of(Py_ssize_t numbers) noexcept nogil:
    """Distance of copied rows: an odd number of 16s, so that those above each other are not rivals for the same lines of L1."""
    return ((numbers + 15) // 16 | 1) * 16


cdef inline bint as_planes(Py_ssize_t channels, Py_ssize_t repeat, Py_ssize_t stride, Py_ssize_t most) noexcept nogil:
    """Whether an image of so few channels, at most `most`, had better be split into planes, at that stride along the rows."""
    return DW_VECTOR_BYTES >= 32 and repeat == 1 and stride == 2 and channels <= dw_min(FEW_CHANNELS, most)


cdef inline void split_rows(const real* x, Py_ssize_t rows, Py_ssize_t row, Py_ssize_t cols, Py_ssize_t pixel,
                            Py_ssize_t channels, real* planes, Py_ssize_t pitch, Py_ssize_t apart) noexcept nogil:
    """Rows of pixels as rows of planes, `pitch` apart; the planes are `apart`."""
    cdef Py_ssize_t r
    for r in range(rows):
        if real is float:
            split_pixels_f32(x + r * row, cols, pixel, channels, planes + r * pitch, apart)
        else:
            split_pixels_f64(x + r * row, cols, pixel, channels, planes + r * pitch, apart)


cdef inline void join_rows(const real* planes, Py_ssize_t pitch, Py_ssize_t apart, Py_ssize_t rows, Py_ssize_t numbers,
                           Py_ssize_t channels, real* y, Py_ssize_t row) noexcept nogil:
    """And back, to so many numbers of pixels without gaps."""
    cdef Py_ssize_t r
    for r in range(rows):
        if real is float:
            join_pixels_f32(planes + r * pitch, apart, numbers, channels, y + r * row)
        else:
            join_pixels_f64(planes + r * pitch, apart, numbers, channels, y + r * row)


cdef struct Tiling:
    Py_ssize_t rows, cols     # of the result in a tile, at most; 0: none fits
    Py_ssize_t down, across   # tiles


cdef Tiling few_tiling(const Plan* p, bint back, Py_ssize_t room, int workers) noexcept nogil:
    """The widest tile of which the planes, and those that it is made from, are at most `room` numbers, and some rows high: of
    outputs, or back, of pairs of inputs.  None where what tiles share would be most of the work."""
    cdef Tiling t
    cdef Py_ssize_t rows = p.rows.size if back else p.rows.out, cols = p.cols.size if back else p.cols.out
    cdef Py_ssize_t parts, own, row, others, least = dw_min(rows, (1 if back else 2) * TURNED_ROWS), step = 2 if back else 1
    for parts in range(1, dw_ceil_div(cols, FEW_COLUMNS) + 1):
        t.cols = dw_ceil_div(dw_ceil_div(cols, parts), step) * step
        own, row = pitch_of(t.cols), pitch_of(reached(&p.cols, t.cols) if back else seen(&p.cols, t.cols))
        t.rows = room // (p.channels * own) // step * step
        t.rows = dw_min(t.rows, rows)
        while t.rows >= least:
            others = reached(&p.rows, t.rows) if back else seen(&p.rows, t.rows)
            if p.channels * (others * row + t.rows * own) <= room:
                t.down, t.across = dw_ceil_div(rows, t.rows), dw_ceil_div(cols, t.cols)
                t.down = even_shares(t.down, dw_max(t.down, rows // least), p.images * t.across, workers)
                if others * row > (2 if back else 12) * t.rows * own:     # a quarter, four times as many without what they share
                    t.rows = 0
                return t
            t.rows = dw_ceil_div(t.rows - step, step) * step
    t.rows = 0
    return t


cdef inline bint few_serve(const Plan* p, Py_ssize_t size, int workers, Tiling* t) noexcept nogil:
    """Whether the forward takes planes, for whose rows there must be tiles, and sets t.

    Not from memory (2000x2000x4: 0.7 times as fast)."""
    cdef Plan planes = p[0]
    cdef Py_ssize_t k, col0 = 0
    if (not as_planes(p.channels, p.repeat, p.cols.stride, lanes_of(size) // 2) or p.rows.taps != p.cols.taps
            or p.geometry.stream or p.rows.phases * p.cols.phases > 1
            or p.xw != p.channels and p.cols.size > 1 or p.yw != p.channels and p.cols.out > 1):
        return False
    t[0] = few_tiling(p, False, SCRATCH_BYTES // size, workers)
    planes.geometry.far = 0
    for k in range(t.across if t.rows else 0):      # as few_task takes them, with the least rows of a tile
        planes.cols = columns_of(&p.cols, k * t.cols, dw_min((k + 1) * t.cols, p.cols.out), &col0)
        planes.geometry.cols = planes.cols.out
        fill_rows(&planes, size)
        if (parts_serve_f32(&planes.geometry, p.rows.out // t.down, 2) if size == sizeof(float)
                else parts_serve_f64(&planes.geometry, p.rows.out // t.down, 2)):
            return False
    return t.rows > 0


cdef void few_task(const Plan* p, Tiling t, Py_ssize_t task, const real* x, const real* w, const real* bias, real* y,
                   real* scratch) noexcept nogil:
    """One image, one tile of outputs."""
    cdef Plan local = p[0]
    cdef Py_ssize_t c0 = task % t.across * t.cols, band = task // t.across % t.down, n = task // (t.across * t.down)
    cdef Py_ssize_t r0 = p.rows.out * band // t.down
    cdef Py_ssize_t row0 = 0, col0 = 0, rows
    cdef real* out
    local.rows = columns_of(&p.rows, r0, p.rows.out * (band + 1) // t.down, &row0)
    local.cols = columns_of(&p.cols, c0, dw_min(c0 + t.cols, p.cols.out), &col0)
    local.xh, local.yh = pitch_of(local.cols.size), pitch_of(local.cols.out)
    local.xc, local.yc = local.rows.size * local.xh, local.rows.out * local.yh
    local.geometry.far = local.geometry.stream = 0       # the scratch is near
    local.geometry.cols = local.cols.out
    fill_rows(&local, sizeof(real))
    enter_rows(&local, 0, &rows)
    out = scratch + p.channels * local.xc
    split_rows(x + n * p.xn + row0 * p.xh + col0 * p.xw, local.rows.size, p.xh, local.cols.size, p.channels, p.channels, scratch,
               local.xh, local.xc)
    if real is float:
        row_block_f32(&local.geometry, scratch, w, bias, out, 0, rows, p.channels, local.xc, local.yc)
    else:
        row_block_f64(&local.geometry, scratch, w, bias, out, 0, rows, p.channels, local.xc, local.yc)
    join_rows(out, local.yh, local.yc, rows, local.cols.out * p.channels, p.channels, y + n * p.yn + r0 * p.yh + c0 * p.yw, p.yh)


cdef void run_few(Plan* p, Tiling t, const real* x, const real* w, const real* bias, real* y, real* scratch,
                  int workers) noexcept nogil:
    cdef Py_ssize_t task, tasks = p.images * t.down * t.across
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                few_task(p, t, task, x, w, bias, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                few_task(p, t, task, x, w, bias, y, scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))
