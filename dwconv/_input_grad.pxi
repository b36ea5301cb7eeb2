# The gradient of the input, included at the end of _kernels.pyx.
#
#     grad (N, OH, OW, C*M), x_grad (N, H, W, C)     channels_last
#     grad (N, C*M, OH, OW), x_grad (N, C, H, W)     channels_first
#
# At stride 1 it is the forward of grad with the kernel turned round.  At stride s the inputs i, i + lcm(s, d), ... of an axis
# see the same taps at the same distances, so each residue is a forward of stride 1 with some of the taps, a phase, whose
# outputs lie apart in x_grad; inputs that no tap reaches are written as zeros.  An axis here is the forward's, with its
# names: `size` and `out` are what x_grad and grad have.  A window of an axis (some inputs and the outputs they reach) is an
# axis again, so bands and tiles are nothing but other arguments.
#
# Five ways: run_grad_channels (channels_last), run_near (the same with the gradients in the scratch), run_few_grad (the same with
# few channels, as planes in the scratch), run_grad_blocks (a vector of planes as channels in the scratch; and, with a multiplier,
# both layouts), run_grad_rows (planes one by one: the tiles of stride 2, or any geometry at all).
# Each element is one chain of multiply-adds, gradients in row-major order, and with a multiplier the sum of M such chains in
# the order of m: no way of cutting the work shows in the bits.
#
# Refused here: what _kernels.pyx refuses.

cdef extern from *:
    ctypedef struct dw_grad_row:
        Py_ssize_t x, w, y, taps
    ctypedef struct dw_grad_planes:
        Py_ssize_t rows, cols, grad_rows, grad_cols, row_pad, col_pad, xh, yh, xc, yc, wh, ww, taps, planes
    bint dw_grad_pairs(Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    bint dw_grad_planes_serve(Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    int dw_grad_both(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void grad_strip_f32(const dw_geometry*, Py_ssize_t, int, int, const float*, const float*, float*,
                        const dw_grad_row*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void grad_strip_f64(const dw_geometry*, Py_ssize_t, int, int, const double*, const double*, double*,
                        const dw_grad_row*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void grad_sparse_f32(const dw_geometry*, const float*, const float*, float*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         Py_ssize_t) nogil
    void grad_sparse_f64(const dw_geometry*, const double*, const double*, double*, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         Py_ssize_t) nogil
    void grad_planes_f32(const dw_grad_planes*, const float*, const float*, float*) nogil
    void grad_planes_f64(const dw_grad_planes*, const double*, const double*, double*) nogil
    void add_groups_f32(const float*, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void add_groups_f64(const double*, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void store_sums_f32(const float*, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void store_sums_f64(const double*, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void add_row_f32(const float*, float*, Py_ssize_t, bint) nogil
    void add_row_f64(const double*, double*, Py_ssize_t, bint) nogil
    void clear_block_f32(float*, Py_ssize_t) nogil
    void clear_block_f64(double*, Py_ssize_t) nogil
    void store_block_f32(const float*, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void store_block_f64(const double*, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil

cdef enum:
    GRAD_ROWS = 4             # run_grad_rows: of one phase in a band, at least
    GRAD_COLS = 1024          # columns of a phase that are made together, at most
    GRAD_BYTES = 32768        # of rows of them (multiplier 4, 64x64x32: 140 us, 4 rows at a time 270)
    JOINED = 4                # column phases of a row that are made together and joined, at most
    JOINED_ROW = 128          # numbers of a row, from which on that beats planes as channels, but for 4 (7x7, 160x160: 1.9 times)
    NEAR_BYTES = 512          # of each of the pixels that share sets of the nearest cache, at a time, or half or a quarter
    NEAR_PIXELS = 16          # from so many gradients of a map on (7x7: 1.0 to 1.2 times as fast, 4x4 0.8)


# ---- geometry ----

cdef struct Taps:             # of inputs i, i + lcm(stride, dilation), ...
    Py_ssize_t count          # how many reach them; 0: the gradient is zero
    Py_ssize_t last           # the last, which meets the first gradient; the others follow downwards, a.step apart
    Py_ssize_t first          # the gradient it meets for input i; negative before the first; the others follow, `reach` apart
    Py_ssize_t lo, hi         # taps from there, counted from 0 at the last, whose gradients exist: lo <= t < hi


cdef inline Py_ssize_t period(const Axis* a) noexcept nogil:
    """After how many inputs the taps repeat: lcm(stride, dilation)."""
    return a.step * a.dilation


cdef inline Taps taps_of(const Axis* a, Py_ssize_t i) noexcept nogil:
    cdef Taps t
    cdef Py_ssize_t tap, rest = (i + a.pad) % a.stride, down = a.dilation % a.stride
    rest += a.stride if rest < 0 else 0
    t.count, t.last, t.first, t.lo, t.hi = 0, 0, 0, 0, 0
    for tap in range(dw_min(a.step, a.taps)):
        if rest == 0:         # i + pad - tap * dilation is a multiple of the stride
            t.count = (a.taps - 1 - tap) // a.step + 1
            t.last = tap + (t.count - 1) * a.step
            t.first = (i + a.pad - t.last * a.dilation) // a.stride
            t.lo = dw_ceil_div(-t.first, reach(a))
            t.hi = dw_ceil_div(a.out - t.first, reach(a))
            break
        rest -= down
        rest += a.stride if rest < 0 else 0
    return t


cdef inline Axis window(const Axis* a, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t* out0) noexcept nogil:
    """The axis of inputs i0 to i1 and of the outputs that they reach, from out0[0] on."""
    cdef Axis b = a[0]
    cdef Py_ssize_t o0 = dw_min(dw_max(dw_ceil_div(i0 + a.pad - (a.taps - 1) * a.dilation, a.stride), 0), a.out)
    cdef Py_ssize_t o1 = dw_min((i1 - 1 + a.pad) // a.stride + 1, a.out)
    out0[0] = o0
    b.size, b.out, b.pad = i1 - i0, dw_max(o1 - o0, 0), i0 + a.pad - o0 * a.stride
    return b


cdef inline Py_ssize_t reached(const Axis* a, Py_ssize_t inputs) noexcept nogil:
    """How many outputs so many neighbouring inputs reach at most."""
    return dw_min((inputs - 1 + (a.taps - 1) * a.dilation) // a.stride + 1, a.out)


# ---- a window of x_grad as channels: all phases ----

cdef void grad_window(const Plan* p, const Axis* rows, const Axis* cols, const real* x, const real* w, real* y,
                      Py_ssize_t first, Py_ssize_t blocks, Py_ssize_t channels) noexcept nogil:
    """Blocks of channels of the window y from the gradients x, strides in the plan; the first and the last block may be shifted
    to lie inside the channels."""
    cdef dw_geometry g
    cdef dw_grad_row strip[2]
    cdef Taps th, tw
    cdef Py_ssize_t i, j, k, lanes = lanes_of(sizeof(real)), height
    cdef int pairs, parity = rows.pad & 1
    cdef const real* wt
    cdef real* to
    g.clamp, g.lo, g.hi, g.repeat, g.period, g.sh, g.sw = 0, 0, 0, 1, 1, 1, 1
    g.stream, g.far, g.strips, g.compact, g.packed, g.alike, g.resume, g.parts = 0, 0, 1, 0, 0, 0, 0, 0
    g.xh, g.xw = reach(rows) * p.xh, reach(cols) * p.xw
    g.wh, g.ww = -rows.step * p.wh, -cols.step * p.ww
    g.pad, g.width = cols.pad, cols.out
    if dw_grad_pairs(cols.taps, cols.stride, cols.dilation) and channels >= lanes:
        g.x0, g.ww, g.yh, g.yw, g.cols, g.far = 0, p.ww, p.yh, p.yw, cols.size, p.geometry.far
        pairs = dw_grad_both(rows.taps, rows.stride, rows.dilation, p.yw * <Py_ssize_t> sizeof(real)) if cols.taps == 3 else 0
        if pairs:
            g.wh = p.wh
        for i in range(0, rows.size, 2):
            height = dw_min(rows.size - i, 2)
            if pairs:
                k = (i + rows.pad - parity) // 2 - (2 - parity) // 2          # the first gradient row that reaches the pair
                strip[0].x, strip[0].w, strip[0].y = k * p.xh, 0, i * p.yh
                strip[0].taps = (0 <= k < rows.out) + 2 * (0 <= k + 1 < rows.out)
            else:
                for k in range(height):
                    th = taps_of(rows, i + k)
                    th.lo, th.hi = dw_max(th.lo, 0), dw_min(th.hi, th.count)
                    strip[k].x = (th.first + th.lo * reach(rows)) * p.xh
                    strip[k].w = (th.last - th.lo * rows.step) * p.wh
                    strip[k].y = (i + k) * p.yh
                    strip[k].taps = dw_max(th.hi - th.lo, 0)
            if real is float:
                grad_strip_f32(&g, cols.taps, pairs, parity, x, w, y, strip, height, first, blocks, channels)
            else:
                grad_strip_f64(&g, cols.taps, pairs, parity, x, w, y, strip, height, first, blocks, channels)
        return
    g.yh, g.yw = period(rows) * p.yh, period(cols) * p.yw
    for i in range(dw_min(period(rows), rows.size)):
        th = taps_of(rows, i)
        height = dw_ceil_div(rows.size - i, period(rows))
        for j in range(dw_min(period(cols), cols.size)):
            tw = taps_of(cols, j)
            g.kh, g.kw = th.count if tw.count else 0, tw.count if th.count else 0
            g.x0 = th.first * p.xh + tw.first * p.xw
            g.row_lo, g.row_hi, g.col_lo, g.col_hi = th.lo, th.hi, tw.lo, tw.hi
            g.cols = dw_ceil_div(cols.size - j, period(cols))
            wt, to = w + (th.last * p.wh + tw.last * p.ww), y + (i * p.yh + j * p.yw)
            if th.count > 2 or tw.count > 2 or channels < lanes:
                channel_blocks(&g, x, wt, <const real*> NULL, to, 0, height, first, blocks, channels)
            elif real is float:
                grad_sparse_f32(&g, x, wt, to, height, first, blocks, channels)
            else:
                grad_sparse_f64(&g, x, wt, to, height, first, blocks, channels)


# ---- channels_last ----

cdef void grad_channel_task(const Plan* p, Py_ssize_t task, const real* x, const real* w, real* y) noexcept nogil:
    """One image, one band of rows, one group of channel blocks."""
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), unit = dw_min(period(&p.rows), p.rows.size), out0
    cdef Py_ssize_t group = task % p.groups, band = task // p.groups % p.bands, n = task // (p.groups * p.bands)
    cdef Py_ssize_t units = dw_ceil_div(p.rows.size, unit), r0 = band_row(units, band, p.bands) * unit
    cdef Py_ssize_t first = p.blocks * group // p.groups, end = p.blocks * (group + 1) // p.groups
    cdef Axis rows = window(&p.rows, r0, dw_min(band_row(units, band + 1, p.bands) * unit, p.rows.size), &out0)
    x += n * p.xn + out0 * p.xh
    y += n * p.yn + r0 * p.yh
    grad_window(p, &rows, &p.cols, x, w, y, p.start + first * lanes, end - first, p.channels)


cdef void run_grad_channels(Plan* p, const real* x, const real* w, real* y, int workers) noexcept nogil:
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), task, tasks
    cdef Py_ssize_t units = dw_ceil_div(p.rows.size, dw_min(period(&p.rows), p.rows.size))
    if p.rows.stride == p.cols.stride == 1 and dw_wraps(p.rows.taps, p.cols.taps, 1, 1, False):
        set_blocks(p, x, p.xw | p.xh | p.xn, 4, True)
    else:                     # so that stores are aligned: at larger strides there are more of them than of loads
        set_blocks(p, y, p.yw | p.yh | p.yn, 6, False)
    # the phases of a band go over it one after the other, which therefore should fit the cache; pairs of columns are in order
    p.bands = 1
    if not dw_grad_pairs(p.cols.taps, p.cols.stride, p.cols.dilation):
        p.bands = dw_ceil_div(p.rows.size * dw_min(p.cols.size * p.channels * <Py_ssize_t> sizeof(real), BAND_BYTES), BAND_BYTES)
    p.bands = for_rounds(p, even_shares(dw_min(p.bands, units // 2), units // 2, p.images, workers),
                         dw_ceil_div(units, DW_ANY_ROWS), p.images, workers)
    p.groups = 1
    tasks = p.images * p.bands
    if tasks < workers:
        p.groups = even_shares(1, p.blocks, tasks, workers)
    p.groups = for_rounds(p, p.groups, p.blocks, tasks, workers)
    tasks *= p.groups
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                grad_channel_task(p, task, x, w, y)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                grad_channel_task(p, task, x, w, y)


# ---- channels_last, pixels a power of two apart: the gradients through the scratch ----

cdef inline Py_ssize_t shared_rows(const Plan* p) noexcept nogil:
    """Of the gradients that two bands need at most."""
    return (p.rows.taps - 1) * p.rows.dilation // p.rows.stride + 1


cdef Py_ssize_t near_rows(Plan* p, Py_ssize_t touched, Py_ssize_t size) noexcept nogil:
    """Rows of gradients that fit the scratch beside the weights, p.staged bytes of each pixel, which is set; 0 where they are
    better used as they lie: kernels of one row or column of taps use each but once or twice."""
    cdef Py_ssize_t rows, taps = p.rows.taps * p.cols.taps
    if (not DW_VECTOR_BYTES or p.repeat > 1 or p.channels * size < DW_VECTOR_BYTES or p.yw == 0 or p.yw * size % 2048 != 0
            or p.wh != p.cols.taps * p.ww or p.rows.taps == 1 or p.cols.taps == 1
            or p.rows.out * p.cols.out < NEAR_PIXELS or touched > stream_bytes):
        return 0
    p.staged = NEAR_BYTES
    while p.staged >= NEAR_BYTES // 4:
        rows = (SCRATCH_BYTES // p.staged - taps) // p.cols.out
        if rows >= p.rows.out or rows >= 2 * shared_rows(p):
            return rows
        p.staged //= 2
    return 0


cdef void near_task(const Plan* p, Py_ssize_t task, const real* x, const real* w, real* y, real* scratch) noexcept nogil:
    """One image, one band of rows; p.staged bytes of channels at a time."""
    cdef Plan near = p[0]
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), step = p.staged // <Py_ssize_t> sizeof(real), at = p.start
    cdef Py_ssize_t taps = p.rows.taps * p.cols.taps, band = task % p.bands, n = task // p.bands, c, channels, out0
    cdef Py_ssize_t units = dw_ceil_div(p.rows.size, p.rows.stride), r0 = units * band // p.bands * p.rows.stride
    cdef Axis rows = window(&p.rows, r0, dw_min(units * (band + 1) // p.bands * p.rows.stride, p.rows.size), &out0)
    cdef real* copied = scratch + taps * step
    x += n * p.xn + out0 * p.xh
    y += n * p.yn + r0 * p.yh
    while at < p.channels:
        c = dw_max(dw_min(at, p.channels - lanes), 0)
        channels = dw_min(at + step, p.channels) - c
        near.xh, near.xw, near.wh, near.ww = p.cols.out * channels, channels, p.cols.taps * channels, channels
        copy_pixels(w + c, 1, 0, taps, p.ww, channels, scratch, False)
        copy_pixels(x + c, rows.out, p.xh, p.cols.out, p.xw, channels, copied, p.geometry.far)
        grad_window(&near, &rows, &p.cols, copied, scratch, y + c, at - c, dw_ceil_div(c + channels - at, lanes), channels)
        at += step


cdef void run_near(Plan* p, const real* x, const real* w, real* y, real* scratch, Py_ssize_t rows, int workers) noexcept nogil:
    """rows: of gradients in the scratch at most."""
    cdef Py_ssize_t task, tasks, units = dw_ceil_div(p.rows.size, p.rows.stride)     # as many rows as the stride
    set_blocks(p, y, p.yw | p.yh | p.yn, 6, False)
    p.bands = 1 if rows >= p.rows.out else dw_ceil_div(units, rows - shared_rows(p))
    p.bands = for_rounds(p, even_shares(p.bands, units, p.images, workers), units, p.images, workers)
    tasks = p.images * p.bands
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                near_task(p, task, x, w, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                near_task(p, task, x, w, y, scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))


# ---- blocks of channels in the scratch: planes taken as channels; the multiplier ----

cdef inline bint sums_at_once(const Plan* p, bint last, Py_ssize_t lanes) noexcept nogil:
    """Whether the vectors that a vector of x_grad is summed from are made together: as many as the multiplier."""
    return last and p.repeat > 1 and (p.repeat == 2 or p.repeat == 4 or p.repeat == lanes)


cdef Tiling grad_tiling(const Plan* p, bint last, Py_ssize_t size) noexcept nogil:
    """The tile that fits the scratch with the gradients that it needs (channels_first) and twice itself (multiplier; or once
    for each of it), for the least traffic; not of one row, which would be tiles of one row."""
    cdef Tiling t
    cdef Py_ssize_t rest = SCRATCH_BYTES // (lanes_of(size) * size), parts, cols, rows, row, gradients, least = 0, cost
    cdef Py_ssize_t taps = p.rows.taps * p.cols.taps if not last and p.repeat > 1 else 0     # their weights
    cdef Py_ssize_t copies = p.repeat if sums_at_once(p, last, lanes_of(size)) else 2 if p.repeat > 1 else 1
    t.rows, t.cols, t.down, t.across = 0, 0, 1, 1
    rest = dw_max(rest - taps, 0)
    for parts in range(1, p.cols.size + 1):
        cols = dw_ceil_div(p.cols.size, parts)
        cols = dw_min((cols + 15) // 16 * 16, p.cols.size) if parts > 1 else cols
        row = 0 if last else reached(&p.cols, cols)
        # rows for which all gradients fit, or those that they reach: (rows - 1 + span) / stride + 1
        rows = dw_max((rest - row * p.rows.out) // (copies * cols),
                      (p.rows.stride * (rest - row) - row * (p.rows.taps - 1) * p.rows.dilation)
                      // (row + p.rows.stride * copies * cols))
        rows = dw_min(rows, p.rows.size)
        if rows > 0:
            gradients = row * reached(&p.rows, rows)
            cost = 1024 * (gradients + rows * cols) // (rows * cols)
            if least == 0 or cost < least or t.rows == 1 < rows:
                least, t.rows, t.cols = cost, rows, cols
            if rows == p.rows.size:
                break
        if cols <= 16:
            break
    if t.rows:
        t.down = dw_ceil_div(p.rows.size, t.rows)
        t.rows = dw_ceil_div(p.rows.size, t.down)
        t.across = dw_ceil_div(p.cols.size, t.cols)
    return t


cdef inline void gather(const real* const* planes, const Plan* p, Py_ssize_t at, Py_ssize_t rows, Py_ssize_t cols,
                        real* block) noexcept nogil:
    """A window of the gradients of planes, from element `at` on."""
    cdef Py_ssize_t r, runs = rows, run = cols
    if p.xh == cols:          # no gaps
        runs, run = 1, rows * cols
    for r in range(runs):
        if real is float:
            gather_planes_f32(planes, at + r * p.xh, run, block + r * run * lanes_of(sizeof(real)), False)
        else:
            gather_planes_f64(planes, at + r * p.xh, run, block + r * run * lanes_of(sizeof(real)), False)


cdef inline void scatter(const real* block, const Plan* p, Py_ssize_t rows, Py_ssize_t cols, real* y,
                         Py_ssize_t skip) noexcept nogil:
    """A window of planes of x_grad from a block of channels, of which the first `skip` are left out."""
    cdef Py_ssize_t r, runs = rows, run = cols
    if p.yh == cols:
        runs, run = 1, rows * cols
    for r in range(runs):
        if real is float:
            scatter_planes_f32(block + r * run * lanes_of(sizeof(real)), run, y + r * p.yh, p.yc, skip)
        else:
            scatter_planes_f64(block + r * run * lanes_of(sizeof(real)), run, y + r * p.yh, p.yc, skip)


cdef void grad_block_task(const Plan* p, bint last, Tiling t, Py_ssize_t task, const real* x, const real* w, real* y,
                          real* scratch) noexcept nogil:
    """One image, one block of channels, one tile of x_grad."""
    cdef Plan local = p[0]
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), channels = p.channels // p.repeat, blocks = dw_ceil_div(channels, lanes)
    cdef Py_ssize_t c0 = task % t.across * t.cols, r0 = task // t.across % t.down * t.rows
    cdef Py_ssize_t first = task // (t.across * t.down) % blocks * lanes, n = task // (t.across * t.down * blocks)
    cdef Py_ssize_t end = dw_min(first + lanes, channels), j, j0, k, lane, tap, row0, col0, pixels
    cdef Py_ssize_t base = first if last else dw_min(first, channels - lanes)     # channel of lane 0 of a block of planes
    cdef Axis rows = window(&p.rows, r0, dw_min(r0 + t.rows, p.rows.size), &row0)
    cdef Axis cols = window(&p.cols, c0, dw_min(c0 + t.cols, p.cols.size), &col0)
    cdef real* out = scratch + (0 if last else rows.out * cols.out * lanes)
    cdef real* total
    cdef real* own = NULL     # weights
    cdef const real* planes[16]
    cdef Py_ssize_t at = row0 * p.xh + col0 * p.xw
    cdef Py_ssize_t together = p.repeat if sums_at_once(p, last, lanes) and end - first == lanes else 1
    pixels = rows.size * cols.size
    x += n * p.xn
    y += n * p.yn + r0 * p.yh + c0 * p.yw
    local.yh, local.yw = cols.size * lanes * together, lanes * together
    if together > 1:
        j = first * p.repeat
        grad_window(&local, &rows, &cols, x + j + at, w + j, out, 0, together, p.channels - j)
        if real is float:
            store_sums_f32(out, rows.size, cols.size, y + first, p.yh, p.yw, together)
        else:
            store_sums_f64(out, rows.size, cols.size, y + first, p.yh, p.yw, together)
        return
    total = out
    if p.repeat > 1:
        total = out + pixels * lanes
        if real is float:
            clear_block_f32(total, pixels)
        else:
            clear_block_f64(total, pixels)
    if not last:              # planes: those of the multiplier's first outputs as channels, then of its second, ...
        local.xh, local.xw = cols.out * lanes, lanes
        if p.repeat > 1:
            own = total + pixels * lanes
            local.wh, local.ww = p.cols.taps * lanes, lanes
        for k in range(p.repeat):
            for lane in range(lanes):
                j = dw_max(base + lane, 0) * p.repeat + k
                planes[lane] = x + j * p.xc
                if p.repeat > 1:
                    for tap in range(p.rows.taps * p.cols.taps):
                        own[tap * lanes + lane] = w[tap // p.cols.taps * p.wh + tap % p.cols.taps * p.ww + j]
            gather(planes, p, at, rows.out, cols.out, scratch)
            grad_window(&local, &rows, &cols, scratch, own if p.repeat > 1 else w + base, out, 0, 1, lanes)
            if p.repeat > 1:
                if real is float:
                    grad_add_f32(total, out, pixels * lanes)
                else:
                    grad_add_f64(total, out, pixels * lanes)
        scatter(total, p, rows.size, cols.size, y + base * p.yc, first - base)
        return
    for k in range(dw_ceil_div((end - first) * p.repeat, lanes)):
        j = first * p.repeat + k * lanes
        j0 = dw_max(dw_min(j, p.channels - lanes), 0)
        grad_window(&local, &rows, &cols, x + j0 + at, w + j0, out, 0, 1, p.channels - j0)
        if real is float:
            add_groups_f32(out, pixels, total, p.repeat, first * p.repeat - j0, j - j0)
        else:
            add_groups_f64(out, pixels, total, p.repeat, first * p.repeat - j0, j - j0)
    if real is float:
        store_block_f32(total, rows.size, cols.size, y + first, p.yh, p.yw, end - first)
    else:
        store_block_f64(total, rows.size, cols.size, y + first, p.yh, p.yw, end - first)


cdef void run_grad_blocks(Plan* p, bint last, Tiling t, const real* x, const real* w, real* y, real* scratch,
                          int workers) noexcept nogil:
    cdef Py_ssize_t task, lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t tasks = p.images * dw_ceil_div(p.channels // p.repeat, lanes) * t.down * t.across
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                grad_block_task(p, last, t, task, x, w, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                grad_block_task(p, last, t, task, x, w, y, scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))


# ---- planes one by one ----

cdef inline Py_ssize_t even_row(Py_ssize_t size, Py_ssize_t band, Py_ssize_t bands) noexcept nogil:
    """The first row of a band of x_grad, an even one: tiles of pairs of rows are chosen by the parity of the padding."""
    return dw_min(dw_ceil_div(size, 2) * band // bands * 2, size)


cdef void grad_phases(const Plan* p, const Axis* rows, const real* x, const real* w, real* y, real* scratch) noexcept nogil:
    """A band of rows of a plane of x_grad: each phase in the scratch, where its columns are neighbours."""
    cdef const Axis* cols = &p.cols
    # neighbours of a row's phase may see neighbouring gradients, whatever the dilation: the stride is its period, not the lcm
    cdef Py_ssize_t high = period(rows), wide = cols.stride, columns = dw_ceil_div(cols.size, wide)
    # the phases of a row are made together and joined, as pixels from planes; a single one with a multiplier is added to x_grad
    cdef bint joined = wide <= JOINED and (wide > 1 or p.repeat == 1)
    cdef Py_ssize_t height, i, j, block, strip, q, r, k, m, c, many, runs, run, step, pitch = dw_min(columns, GRAD_COLS)
    cdef const real* wt
    cdef dw_geometry g
    cdef Taps th, tw
    cdef real* sums
    cdef real* one
    cdef real* to
    if joined:
        pitch = pitch_of(dw_min(columns, GRAD_COLS // wide))
    step = GRAD_BYTES // ((wide + (p.repeat > 1) if joined else 1) * pitch * <Py_ssize_t> sizeof(real))
    g.clamp, g.lo, g.hi, g.repeat, g.period, g.sh, g.sw = 0, 0, 0, 1, 1, 1, 1
    g.stream, g.far, g.strips, g.compact, g.packed, g.alike, g.resume, g.parts = 0, 0, 1, 0, 0, 0, 0, 0
    g.xh, g.xw, g.width = reach(rows) * p.xh, reach(cols), cols.out
    g.wh, g.ww, g.yh, g.yw = -rows.step * p.wh, -cols.step * p.ww, pitch, 1
    for i in range(dw_min(high, rows.size)):
        th = taps_of(rows, i)
        height = dw_ceil_div(rows.size - i, high)
        for block in range(dw_ceil_div(columns, pitch)):
            for strip in range(dw_ceil_div(height, step)):
                q, r = block * pitch, strip * step
                many = dw_min(height - r, step)
                for j in range(dw_min(wide, cols.size - q * wide)):
                    tw = taps_of(cols, j)
                    g.kh, g.kw = th.count if tw.count else 0, tw.count if th.count else 0
                    g.cols = dw_min(dw_ceil_div(cols.size - j, wide) - q, pitch)
                    g.pad = -tw.first - q
                    g.row_lo, g.row_hi = th.lo - r, th.hi - r
                    g.x0 = th.first * p.xh + r * g.xh - g.pad
                    wt = w + (th.last * p.wh + tw.last * p.ww)
                    sums = one = scratch + (j * many * pitch if joined else 0)
                    for m in range(p.repeat):
                        if joined and m:
                            one = scratch + wide * many * pitch
                        if real is float:
                            row_block_f32(&g, x + m * p.xc, wt + m, NULL, one, 0, many, 1, 0, 0)
                        else:
                            row_block_f64(&g, x + m * p.xc, wt + m, NULL, one, 0, many, 1, 0, 0)
                        if joined and p.repeat == 1:
                            break
                        runs, run, to = many, g.cols, y + (i + r * high) * p.yh + q * wide + j
                        if joined:
                            runs, run, to = 1, many * pitch, sums
                        elif high == wide == 1 and run == pitch == p.yh:     # rows without gaps
                            runs, run = 1, many * run
                        # with a multiplier the first to 0, for its sign, as run_grad_blocks does
                        for k in range(runs):
                            if (joined or wide == 1) and real is float:
                                add_row_f32(<const float*> one + k * pitch, <float*> to, run, m == 0)
                            elif joined or wide == 1:
                                add_row_f64(<const double*> one + k * pitch, <double*> to, run, m == 0)
                            else:
                                for c in range(run):
                                    if p.repeat == 1:
                                        to[c * wide] = one[k * pitch + c]
                                    else:
                                        to[c * wide] = (0 if m == 0 else to[c * wide]) + one[k * pitch + c]
                            to += high * p.yh
                if joined:
                    join_rows(scratch, pitch, many * pitch, many, dw_min(cols.size - q * wide, pitch * wide), wide,
                              y + (i + r * high) * p.yh + q * wide, high * p.yh)


cdef void grad_row_task(const Plan* p, bint pairs, Py_ssize_t task, Py_ssize_t tasks, const real* x, const real* w, real* y,
                        real* scratch) noexcept nogil:
    """A range of the items (band of rows, plane of x_grad), planes fastest."""
    cdef Py_ssize_t channels = p.channels // p.repeat, start = p.items * task // tasks, end = p.items * (task + 1) // tasks
    cdef Py_ssize_t band, n, c, r0, row0
    cdef Axis rows
    cdef dw_grad_planes g
    cdef const real* x_plane
    cdef real* y_plane
    g.cols, g.grad_cols, g.col_pad, g.taps = p.cols.size, p.cols.out, p.cols.pad, p.cols.taps
    g.xh, g.xc, g.yh, g.yc, g.wh, g.ww = p.xh, p.xc, p.yh, p.yc, p.wh, p.ww
    while start < end:
        band, n, c = start // (p.images * channels), start // channels % p.images, start % channels
        r0 = even_row(p.rows.size, band, p.bands)
        rows = window(&p.rows, r0, even_row(p.rows.size, band + 1, p.bands), &row0)
        x_plane = x + (n * p.xn + c * p.repeat * p.xc + row0 * p.xh)
        y_plane = y + (n * p.yn + c * p.yc + r0 * p.yh)
        g.rows, g.grad_rows, g.row_pad, g.planes = rows.size, rows.out, rows.pad, 1
        if not pairs:
            grad_phases(p, &rows, x_plane, w + c * p.repeat, y_plane, scratch)
        else:
            g.planes = dw_min(channels - c, end - start)
            if real is float:
                grad_planes_f32(&g, x_plane, w + c, y_plane)
            else:
                grad_planes_f64(&g, x_plane, w + c, y_plane)
        start += g.planes


cdef void run_grad_rows(Plan* p, bint pairs, const real* x, const real* w, real* y, real* scratch, int workers) noexcept nogil:
    cdef Py_ssize_t task, tasks, planes = p.images * (p.channels // p.repeat)
    # phases go over a band one after the other: it should stay in the nearest cache; pairs are made in order
    p.bands = 1 if pairs else p.rows.size * p.cols.size * <Py_ssize_t> sizeof(real) // 16384
    p.bands = for_rounds(p, even_shares(p.bands, p.rows.size, planes, workers), p.rows.size, planes, workers)
    p.bands = dw_max(1, dw_min(p.bands, p.rows.size // (GRAD_ROWS * period(&p.rows))))
    p.items = planes * p.bands
    tasks = tasks_of_items(p, workers)
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                grad_row_task(p, pairs, task, tasks, x, w, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                grad_row_task(p, pairs, task, tasks, x, w, y,
                              scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))


# ---- few channels: planes in the scratch ----

cdef void few_grad_task(const Plan* p, bint pairs, Tiling t, Py_ssize_t task, const real* x, const real* w, real* y,
                        real* scratch) noexcept nogil:
    """One image, one tile of x_grad."""
    cdef Plan local = p[0]
    cdef Py_ssize_t c0 = task % t.across * t.cols, band = task // t.across % t.down, n = task // (t.across * t.down)
    cdef Py_ssize_t r0 = even_row(p.rows.size, band, t.down), row0, col0, c
    cdef Axis rows = window(&p.rows, r0, even_row(p.rows.size, band + 1, t.down), &row0)
    cdef real* out
    cdef dw_grad_planes g
    local.cols = window(&p.cols, c0, dw_min(c0 + t.cols, p.cols.size), &col0)
    local.xh, local.yh = pitch_of(local.cols.out), pitch_of(local.cols.size)
    local.xc, local.yc = rows.out * local.xh, rows.size * local.yh
    out = scratch + p.channels * local.xc
    split_rows(x + n * p.xn + row0 * p.xh + col0 * p.xw, rows.out, p.xh, local.cols.out, p.channels, p.channels, scratch,
               local.xh, local.xc)
    if pairs:
        g.rows, g.cols, g.grad_rows, g.grad_cols = rows.size, local.cols.size, rows.out, local.cols.out
        g.row_pad, g.col_pad, g.planes, g.taps = rows.pad, local.cols.pad, p.channels, local.cols.taps
        g.xh, g.xc, g.yh, g.yc, g.wh, g.ww = local.xh, local.xc, local.yh, local.yc, p.wh, p.ww
        if real is float:
            grad_planes_f32(&g, scratch, w, out)
        else:
            grad_planes_f64(&g, scratch, w, out)
    else:
        for c in range(p.channels):
            grad_phases(&local, &rows, scratch + c * local.xc, w + c, out + c * local.yc, out + p.channels * local.yc)
    join_rows(out, local.yh, local.yc, rows.size, local.cols.size * p.channels, p.channels,
              y + n * p.yn + r0 * p.yh + c0 * p.yw, p.yh)


cdef void run_few_grad(Plan* p, bint pairs, Tiling t, const real* x, const real* w, real* y, real* scratch,
                       int workers) noexcept nogil:
    cdef Py_ssize_t task, tasks = p.images * t.down * t.across
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                few_grad_task(p, pairs, t, task, x, w, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                few_grad_task(p, pairs, t, task, x, w, y, scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))


# ---- entry point ----

cdef bint _input_grad(bint last, const real[:, :, :, :] grad, const real[:, :, :, :] w, real[:, :, :, :] x_grad,
                      tuple rows, tuple cols, int workers) except -1:
    cdef Plan p
    cdef Tiling t
    cdef Py_ssize_t size = sizeof(real), lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t h = 1 if last else 2, c = 3 if last else 1    # axes of the rows (columns follow) and channels
    cdef Extent e = extent(<Py_ssize_t> &x_grad[0, 0, 0, 0], x_grad.shape, x_grad.strides, 4, size)
    cdef real* scratch = NULL
    cdef bint pairs, few
    cdef Py_ssize_t touched, near
    if rows[3] == 1 and cols[3] == 1 and w.shape[2] * w.shape[3] == x_grad.shape[c]:
        return _forward[real](last, grad, w[::-1, ::-1], None, x_grad, turned(rows), turned(cols), (), workers)
    if (meet(e, extent(<Py_ssize_t> &grad[0, 0, 0, 0], grad.shape, grad.strides, 4, size))
            or meet(e, extent(<Py_ssize_t> &w[0, 0, 0, 0], w.shape, w.strides, 4, size))):
        return False
    p.rows, p.cols = make_axis(rows), make_axis(cols)
    p.images, p.channels, p.repeat = grad.shape[0], w.shape[2] * w.shape[3], w.shape[2] * w.shape[3] // x_grad.shape[c]
    p.xn, p.xc = elements(grad.strides[0], grad.shape[0], size), elements(grad.strides[c], grad.shape[c], size)
    p.xh, p.xw = elements(grad.strides[h], grad.shape[h], size), elements(grad.strides[h + 1], grad.shape[h + 1], size)
    p.yn, p.yc = elements(x_grad.strides[0], x_grad.shape[0], size), elements(x_grad.strides[c], x_grad.shape[c], size)
    p.yh, p.yw = elements(x_grad.strides[h], x_grad.shape[h], size), elements(x_grad.strides[h + 1], x_grad.shape[h + 1], size)
    p.wh, p.ww = w.strides[0] // size, w.strides[1] // size
    p.watch = make_watch(<double> p.images * p.channels * p.rows.out * p.cols.out * p.rows.taps * p.cols.taps, workers)
    if last and p.channels == 1 and (p.xw == 1 or p.cols.out == 1) and (p.yw == 1 or p.cols.size == 1):
        last = False          # one plane
    t.rows = 0
    few = (last and as_planes(p.channels, p.repeat, p.cols.stride, lanes - 1) and (p.xw == p.channels or p.cols.out == 1)
           and (p.yw == p.channels or p.cols.size == 1))
    pairs = ((few or not last) and p.repeat == 1 and p.rows.taps == p.cols.taps
             and dw_grad_pairs(p.rows.taps, p.rows.stride, p.rows.dilation)
             and dw_grad_pairs(p.cols.taps, p.cols.stride, p.cols.dilation)
             and dw_grad_planes_serve(p.rows.taps, p.rows.pad, p.cols.pad))
    if few:
        few = pairs or 2 * p.channels <= lanes
    if few:
        t = few_tiling(&p, True, (SCRATCH_BYTES - (0 if pairs else GRAD_BYTES)) // size, workers)
        few = t.rows > 0
    # rows of some width whose phases have no gaps, or with AVX-512 are joined (AVX2: 0.7), go through row tiles, other planes are
    # taken as channels
    elif p.repeat > 1 if last else not pairs and p.channels >= lanes and (
            DW_VECTOR_BYTES == 32 and p.repeat > 1 and 2 * p.channels >= p.repeat * lanes
            or (p.cols.size <= 14 if p.cols.stride == 1
                else p.cols.stride >= JOINED or p.cols.size < JOINED_ROW or DW_VECTOR_BYTES < 64)):
        t = grad_tiling(&p, last, size)
    touched = touched_bytes(&p.rows, &p.cols, p.images, p.channels, p.repeat, size)
    near = near_rows(&p, touched, size) if last and not t.rows else 0
    p.geometry.far = 0 if t.rows else dw_min(touched // FAR_BYTES, 2)     # the scratch is near
    if t.rows or near or not last:
        scratch = <real*> aligned_alloc(64, workers * SCRATCH_BYTES)
        if not scratch:
            raise MemoryError
    with nogil:
        if few:
            run_few_grad(&p, pairs, t, &grad[0, 0, 0, 0], &w[0, 0, 0, 0], &x_grad[0, 0, 0, 0], scratch, workers)
        elif t.rows:
            run_grad_blocks(&p, last, t, &grad[0, 0, 0, 0], &w[0, 0, 0, 0], &x_grad[0, 0, 0, 0], scratch, workers)
        elif near:
            run_near(&p, &grad[0, 0, 0, 0], &w[0, 0, 0, 0], &x_grad[0, 0, 0, 0], scratch, near, workers)
        elif last:
            run_grad_channels(&p, &grad[0, 0, 0, 0], &w[0, 0, 0, 0], &x_grad[0, 0, 0, 0], workers)
        else:
            run_grad_rows(&p, pairs, &grad[0, 0, 0, 0], &w[0, 0, 0, 0], &x_grad[0, 0, 0, 0], scratch, workers)
        free(scratch)
    return -1 if p.watch.stop else True


cdef tuple turned(tuple axis):
    """The axis of the forward that takes the gradient at stride 1: outputs in, inputs out."""
    size, out, taps, _, dilation, pad = axis
    return out, size, taps, 1, dilation, (taps - 1) * dilation - pad


def input_grad(str data_format, grad, w, x_grad, tuple rows, tuple cols, int workers):
    """Writes the gradient of the convolution's input to x_grad, and says so; False, and nothing done, if it may share memory
    with grad or w.

    grad, w, x_grad: arrays as above, all float32 or all float64, the innermost axis of each without gaps.
    rows, cols: the forward's axes (size, out, taps, stride, dilation, pad), see _geometry.py.
    """
    cdef bint last = data_format == "channels_last"
    if w.ndim == 3:
        w = w[..., None]
    if x_grad.itemsize == sizeof(float):
        return _input_grad[float](last, grad, w, x_grad, rows, cols, workers)
    return _input_grad[double](last, grad, w, x_grad, rows, cols, workers)
