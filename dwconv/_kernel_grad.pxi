# cython: language_level=3
"""The kernel gradient: pieces, their pairwise sums, and threads around the tile of _kernel_grad_tiles.h.

    w_grad (kh, kw, C*M), and
    x (N, H, W, C), grad (N, OH, OW, C*M)     channels_last
    x (N, C, H, W), grad (N, C*M, OH, OW)     channels_first

Part of _kernels.pyx.  The outputs are cut into pieces of at most TERMS terms a sum, by geometry only; the sums of a piece are
running sums, those of the pieces are added pairwise: |error| <= (TERMS + 16 + log2(pieces)) * eps * sum|x||grad|.  A task is
a group of channel blocks (or planes) and a part of the pieces, 2**k of them, which is a subtree of the tree of pairs: so the bits
depend neither on the number of workers nor on how the work is cut.

Memory: of a worker, log2(pieces) + 2 times the sums of a group (GROUP_BYTES, or one block's kh*kw vectors), and SCRATCH_BYTES
where x and grad are copied; of a call, where channels do not suffice for the workers, the sums of each part.

Refused here: argument checks (functional.py has made them), dtypes other than float32 and float64, inputs whose innermost axis
has gaps.
"""
from libc.string cimport memcpy, memset


cdef extern from *:
    enum: DW_MOST_LINES, DW_STRIPED, DW_SHIFTS
    ctypedef struct dw_grad:
        Py_ssize_t kh, kw, sh, sw, xh, xw, gh, gw, row_lo, row_hi, col_lo, col_hi, rows, cols, repeat, period
        Py_ssize_t width, pad, dilation, pixel, ahead, next_x, next_g, share, shares, from_ "from"
        const void *x_from
        const void *x_to
        const void *g_to
        int shifted
        Py_ssize_t down
    void grad_channels_f32(const dw_grad*, const float*, const float*, float*, Py_ssize_t, Py_ssize_t) nogil
    void grad_channels_f64(const dw_grad*, const double*, const double*, double*, Py_ssize_t, Py_ssize_t) nogil
    int grad_shifted_serve_f32(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    int grad_shifted_serve_f64(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void grad_rows_f32(const dw_grad*, const float* const*, const float* const*, Py_ssize_t, float*,
                       Py_ssize_t, Py_ssize_t) nogil
    void grad_rows_f64(const dw_grad*, const double* const*, const double* const*, Py_ssize_t, double*,
                       Py_ssize_t, Py_ssize_t) nogil
    void grad_add_lanes_f32(const float*, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void grad_add_lanes_f64(const double*, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    void grad_add_planes_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void grad_add_planes_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    void grad_add_pairs_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void grad_add_pairs_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    void grad_store_f32(const float*, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void grad_store_f64(const double*, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    bint dw_grad_splits(Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void grad_store_split_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void grad_store_split_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    void copy_rows_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*) nogil
    void copy_rows_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*) nogil
    void grad_add_f32(float*, const float*, Py_ssize_t) nogil
    void grad_add_f64(double*, const double*, Py_ssize_t) nogil

cdef enum:
    TERMS = 512               # of a running sum
    COPIED_ROW = 2048         # bytes of a row that is copied without AVX-512, at least
    LINE_BYTES = 24576        # of the rows of x and grad that a slide along a row touches: a share of L1
    L1_BYTES = 32768          # 64 sets of 8 lines
    GRAD_COLUMNS = 8          # of outputs in a unit of planes as channels, at least
    PLANE_BYTES = 24576       # of x and grad of planes taken together: a share of L1
    RUN_BYTES = 700000        # of a unit whose successor is fetched whole, see next_pixels (measured with an L2 of 1 MB)
    FEW_LINES = 4             # strips of planes that few channels are split into, at a time
    GROUP_BYTES = 16384       # sums of the channel blocks that take a piece in turn: a share of L1

cdef enum GradFamily:
    CHANNELS                  # channels_last: vectors along the channels
    PACKED                    # the same, x's pixels of a block, and mostly grad's, copied to the scratch; the same order of sums
    ROWS                      # vectors along a row: of a plane, or of all channels where they are fewer than lanes
    PLANES                    # channels_first: LANES planes gathered to the scratch as channels, of the columns that a unit sees


cdef struct GradPlan:
    Axis rows, cols
    Py_ssize_t images, channels, repeat                       # channels: of the gradient; repeat: the multiplier
    Py_ssize_t xn, xc, xh, xw, gn, gc, gh, gw, wh, ww         # strides in elements
    GradFamily family
    Py_ssize_t lanes, taps
    Py_ssize_t period, strip  # row family: channels of a row; outputs of a vector
    Py_ssize_t line           # terms of one output row in one lane
    Py_ssize_t bands, chunks, units, per_piece, pieces        # of rows; of columns; image x row phase x band x chunk
    Py_ssize_t columns        # PLANES: of outputs in a unit, at most
    Py_ssize_t fit            # copies: output rows whose inputs and, but in place, themselves fit the scratch
    Py_ssize_t at_once        # output rows of a unit that all blocks of a group take before the next ones
    Py_ssize_t head           # channels before the first aligned block
    bint split                # whether those and the last ones are one block
    Py_ssize_t blocks, groups, group                          # of channels; a group's most blocks
    Py_ssize_t together                                       # of those, how many at a time
    Py_ssize_t ahead                                          # elements that slides prefetch ahead; 0: none
    bint runs                                                 # whether they prefetch the next unit's rows instead
    int shifted                                               # row family: by shifted tiles; 2: of two planes; 3: dilated
    Py_ssize_t down                                           # ... by so many rows, of which the tile takes the phases
    bint few                                                  # row family: channels_last, as planes in the scratch
    bint in_place                                             # grad is used where it lies, though x is copied
    bint far                                                  # x and grad are too large for the caches of one worker
    bint stream                                               # ... for all caches
    Py_ssize_t parts, per_part                                # of the pieces; pieces of a part, 2**k
    Py_ssize_t gathered, scratch                              # numbers of a worker: for planes, in all
    Extent x, grad                                            # what may be read
    Py_ssize_t look                                           # pieces between two looks at the signals; 0: none
    Watch watch


cdef struct Unit:
    Py_ssize_t image, phase, chunk
    Phase rows
    Py_ssize_t r0, r1         # output rows of the phase
    Py_ssize_t e0, e1         # row family: output elements of a row
    Py_ssize_t next_x, next_g    # p.runs: elements of x, and of grad, to the next unit, or 0


cdef inline Unit make_unit(const GradPlan* p, Py_ssize_t k) noexcept nogil:
    cdef Unit u
    cdef Py_ssize_t band = k // p.chunks % p.bands
    u.chunk = k % p.chunks
    u.phase, u.image = k // (p.chunks * p.bands) % p.rows.phases, k // (p.chunks * p.bands * p.rows.phases)
    u.rows = make_phase(&p.rows, u.phase)
    u.r0, u.r1 = u.rows.out * band // p.bands, u.rows.out * (band + 1) // p.bands
    u.e0 = p.line * u.chunk // p.chunks * p.strip
    u.e1 = dw_min(p.line * (u.chunk + 1) // p.chunks * p.strip, p.cols.out * p.period)
    u.next_x, u.next_g = 0, 0
    return u


cdef inline void look_ahead(const GradPlan* p, Unit* u, Py_ssize_t k) noexcept nogil:
    """How far on unit k, the next one, lies; at stride 1, without phases."""
    cdef Unit v = make_unit(p, k)
    cdef Py_ssize_t rows = v.r0 - u.r0, cols = p.cols.out * v.chunk // p.chunks - p.cols.out * u.chunk // p.chunks
    u.next_x = (v.image - u.image) * p.xn + rows * p.xh + cols * p.xw
    u.next_g = (v.image - u.image) * p.gn + rows * p.gh + cols * p.gw


# ---- one unit of one block: rows r0..r1 of a row phase, and a share of the columns ----

cdef inline void add_channels(const GradPlan* p, dw_grad* g, const Phase* rows, Py_ssize_t r0, Py_ssize_t r1, Py_ssize_t chunk,
                              const real* x, const real* grad, real* acc, Py_ssize_t block, Py_ssize_t blocks, Py_ssize_t base,
                              Py_ssize_t channels) noexcept nogil:
    """x, grad: tap row 0 of output row r0 and its first pixel; output row r0.  Distances between rows are in g.

    Both begin with channel `base`; copies are of `channels` numbers a pixel."""
    cdef Py_ssize_t xw = p.xw if p.family == CHANNELS else channels
    cdef Py_ssize_t gw = p.gw if p.family == CHANNELS or p.in_place else channels
    cdef Py_ssize_t f, c0, c1, k, first
    cdef Phase cols
    cdef const real* xp
    cdef const real* gp
    g.sw, g.xw, g.gw = p.cols.step, p.cols.dilation * xw, p.cols.phases * gw
    g.shares, g.from_ = blocks, first_channel(p, block) - base
    g.rows, g.row_lo, g.row_hi = r1 - r0, rows.lo - r0 * p.rows.step, rows.hi - r0 * p.rows.step
    for f in range(p.cols.phases):
        cols = make_phase(&p.cols, f)
        c0, c1 = cols.out * chunk // p.chunks, cols.out * (chunk + 1) // p.chunks
        g.cols, g.col_lo, g.col_hi = c1 - c0, cols.lo - c0 * p.cols.step, cols.hi - c0 * p.cols.step
        xp, gp = x + (cols.first + c0 * p.cols.phases * p.cols.stride) * xw, grad + (f + c0 * p.cols.phases) * gw
        for k in range(blocks):      # the divisions above are once for all (7x7x960: 1.12 times as fast)
            first, g.share = first_channel(p, block + k) - base, k
            if real is float:
                grad_channels_f32(g, xp, gp, acc + k * p.taps * p.lanes, first, channels)
            else:
                grad_channels_f64(g, xp, gp, acc + k * p.taps * p.lanes, first, channels)


cdef inline void collect(const real* const* planes, Py_ssize_t at, Py_ssize_t rows, Py_ssize_t row, Py_ssize_t cols,
                         Py_ssize_t lanes, real* block, bint far) noexcept nogil:
    """Rows that lie `row` apart, as channels."""
    cdef Py_ssize_t r
    if row == cols:
        rows, cols = 1, rows * cols
    for r in range(rows):
        if real is float:
            gather_planes_f32(planes, at + r * row, cols, block + r * cols * lanes, far)
        else:
            gather_planes_f64(planes, at + r * row, cols, block + r * cols * lanes, far)


cdef inline void add_copied(const GradPlan* p, dw_grad* g, const Unit* u, const real* x, const real* grad, real* acc,
                            Py_ssize_t block, Py_ssize_t blocks, real* scratch) noexcept nogil:
    """As add_channels, in bands of p.fit rows that are copied to the scratch as pixels of the channels of the blocks.

    Not grad, where p.in_place."""
    cdef const real* there
    cdef const real* x_planes[16]
    cdef const real* g_planes[16]
    cdef const Phase* rows = &u.rows
    cdef Py_ssize_t first = first_channel(p, block), width = first_channel(p, block + blocks - 1) + p.lanes - first
    cdef Py_ssize_t lane, c, end, t0, t1, r = u.r0, x_row = p.rows.dilation * p.xh, g_row = p.rows.phases * p.gh
    cdef Py_ssize_t c0 = 0, in0 = 0
    cdef Axis cols = p.cols   # what is copied: all columns or, of planes without phases of columns, what the unit needs
    cdef real* out
    if p.family == PLANES and p.cols.phases == 1:
        c0 = p.cols.out * u.chunk // p.chunks
        cols = columns_of(&p.cols, c0, p.cols.out * (u.chunk + 1) // p.chunks, &in0)
    g.repeat = 1
    g.xh, g.gh = cols.size * width, cols.out * width
    if p.family == PLANES:
        for lane in range(p.lanes):
            c = dw_min(first + lane, p.channels - 1)     # fewer planes than lanes: the last again
            x_planes[lane], g_planes[lane] = x + c // p.repeat * p.xc, grad + c * p.gc
    while r < u.r1:
        end = dw_min(r + p.fit, u.r1)
        t0 = dw_max(rows.lo, r * p.rows.step)            # tap rows, of output row 0
        t1 = dw_max(dw_min(rows.hi, (end - 1) * p.rows.step + p.rows.taps), t0)
        there = out = scratch + (t1 - t0) * g.xh
        if p.family == PLANES:
            collect(x_planes, (rows.first + t0 * p.rows.dilation) * p.xh + in0, t1 - t0, x_row, cols.size, p.lanes, scratch,
                    p.far)
            collect(g_planes, (u.phase + r * p.rows.phases) * p.gh + c0, end - r, g_row, cols.out, p.lanes, out, p.far)
        else:
            pack(x + (rows.first + t0 * p.rows.dilation) * p.xh, t1 - t0, x_row, p.cols.size, p.xw, first, p.channels, p.repeat,
                 width, scratch, p.far)
            if p.in_place:
                there, g.gh = grad + u.phase * p.gh + r * g_row + first, g_row
            else:
                pack(grad + (u.phase + r * p.rows.phases) * p.gh, end - r, g_row, p.cols.out, p.gw, first, p.channels, 1, width,
                     out, p.far)
        add_channels(p, g, rows, r, end, u.chunk, scratch + (r * p.rows.step - t0) * g.xh - in0 * width, there - c0 * width, acc,
                     block, blocks, first, width)
        r = end


cdef inline void copy_rows(const real* x, Py_ssize_t rows, Py_ssize_t row, Py_ssize_t cols, Py_ssize_t pixel, Py_ssize_t channels,
                           Py_ssize_t pitch, real* out) noexcept nogil:
    if real is float:
        copy_rows_f32(x, rows, row, cols, pixel, channels, pitch, out)
    else:
        copy_rows_f64(x, rows, row, cols, pixel, channels, pitch, out)


cdef inline void add_rows(const GradPlan* p, dw_grad* g, const Unit* u, const real* x, const real* grad, real* acc,
                          Py_ssize_t block, Py_ssize_t blocks, real* scratch) noexcept nogil:
    """x, grad: tap row 0 of the unit's first output row; that row."""
    cdef Py_ssize_t unit, tap = u.r0 * p.rows.step, count = u.r1 - u.r0, c0, c1, t0, t1, a, z, x_pitch, g_pitch, apart, k
    cdef const real* x_planes[16]
    cdef const real* g_planes[16]
    cdef real* out
    if p.period == 1:
        g.repeat = 1
    if p.shifted == 3 and p.stream:      # the next plane, if only after this one's in some images (4 x 64x64x256: 1.9 times)
        g.next_x, g.next_g = p.xc, p.gc
    g.rows, g.row_lo, g.row_hi = count, u.rows.lo - tap, u.rows.hi - tap
    g.sw, g.gw, g.cols = p.cols.stride, p.gw, p.cols.out
    g.width, g.pad, g.dilation, g.pixel = p.cols.size, p.cols.pad, p.cols.dilation, p.xw
    for k in range(blocks):
        x_planes[k] = x + (block + k if p.repeat == 1 else (block + k) // p.repeat) * p.xc
        g_planes[k] = grad + (block + k) * p.gc
    g.x_from, g.x_to, g.g_to = <void*> p.x.lo, <void*> p.x.hi, <void*> p.grad.hi
    if p.gathered:
        unit, c0, c1 = p.period // g.repeat, u.e0 // p.period, u.e1 // p.period
        t0 = dw_max(g.row_lo, 0)
        t1 = dw_max(dw_min(g.row_hi, (count - 1) * p.rows.step + p.rows.taps), t0)
        # at least one column: halves load a row's last number for what lies beyond it
        a = dw_max(dw_min(c0 * p.cols.stride - p.cols.pad, p.cols.size - 1), 0)
        z = (c1 - 1) * p.cols.stride - p.cols.pad + (p.cols.taps - 1) * p.cols.dilation + 1
        z = dw_max(dw_min(z, p.cols.size), a + 1)
        x_pitch, g_pitch = pitch_of((z - a) * unit), pitch_of(u.e1 - u.e0)
        out = scratch + (t1 - t0) * x_pitch
        if p.few and p.xw == p.gw == 1:
            pass              # one plane already
        elif p.few:
            apart = out - scratch
            out = scratch + blocks * apart
            split_rows(x + t0 * g.xh + a * p.xw, t1 - t0, g.xh, z - a, p.xw, blocks, scratch, x_pitch, apart)
            split_rows(grad + c0 * p.gw, count, g.gh, c1 - c0, p.gw, blocks, out, g_pitch, count * g_pitch)
            for k in range(blocks):
                x_planes[k], g_planes[k] = scratch + k * apart - t0 * x_pitch - a, out + k * count * g_pitch - c0
            g.xh, g.gh, g.pixel, g.gw = x_pitch, g_pitch, 1, 1
        elif out - scratch + (0 if p.in_place else count * g_pitch) <= p.gathered:
            copy_rows(x_planes[0] + t0 * g.xh + a * p.xw, t1 - t0, g.xh, z - a, p.xw, unit, x_pitch, scratch)
            x_planes[0] = scratch - t0 * x_pitch - a * unit
            g.xh, g.pixel = x_pitch, unit
            if not p.in_place:
                copy_rows(g_planes[0] + c0 * p.gw, count, g.gh, c1 - c0, p.gw, p.period, g_pitch, out)
                g_planes[0] = out - u.e0
                g.gh, g.gw = g_pitch, p.period
    if real is float:
        grad_rows_f32(g, x_planes, g_planes, blocks, acc, u.e0, u.e1)
    else:
        grad_rows_f64(g, x_planes, g_planes, blocks, acc, u.e0, u.e1)


cdef void add_unit(const GradPlan* p, const Unit* u, Py_ssize_t first, Py_ssize_t end, const real* x, const real* grad,
                   real* acc, real* scratch) noexcept nogil:
    """Adds the terms of these rows of a unit to the sums acc (end - first, kh, kw, lanes) of blocks first to end."""
    cdef dw_grad g
    cdef Py_ssize_t block = first, count = p.together
    x += u.image * p.xn
    grad += u.image * p.gn
    if p.family == CHANNELS or p.family == ROWS:
        x += (u.rows.first + u.r0 * p.rows.phases * p.rows.stride) * p.xh
        grad += (u.phase + u.r0 * p.rows.phases) * p.gh
    while block < end:
        count = dw_min(p.together, end - block)
        g.kh, g.kw, g.sh = p.rows.taps, p.cols.taps, p.rows.step
        g.repeat, g.period = p.repeat, p.period
        g.xh, g.gh, g.ahead, g.shifted, g.down = p.rows.dilation * p.xh, p.rows.phases * p.gh, p.ahead, p.shifted, p.down
        g.next_x, g.next_g = u.next_x, u.next_g
        if p.family == CHANNELS:
            add_channels(p, &g, &u.rows, u.r0, u.r1, u.chunk, x, grad, acc, block, count, 0, p.channels)
        elif p.family == ROWS:
            add_rows(p, &g, u, x, grad, acc, block, count, scratch)
        else:
            add_copied(p, &g, u, x, grad, acc, block, count, scratch)
        block += count
        acc += count * p.taps * p.lanes


cdef inline Py_ssize_t first_channel(const GradPlan* p, Py_ssize_t block) noexcept nogil:
    """The last block overlaps its neighbour, as the first does where the others are aligned, and computes the same.

    Negative for a first block that is split: it has the last channels and the first ones."""
    cdef Py_ssize_t first = block * p.lanes
    if p.head and (block or p.split):
        first += p.head - p.lanes
    return dw_max(dw_min(first, p.channels - p.lanes), -p.lanes if p.split else 0)


cdef inline void set_head(GradPlan* p, const real* x, const real* grad) noexcept nogil:
    """Channels before the first whose vectors are aligned at every pixel of x and grad, or 0 where none are or all.

    With a split block only of x, which is loaded more often; of grad, where x alone is copied and the kernel small."""
    cdef Py_ssize_t lanes = p.lanes, strides = p.xw | p.xh | p.xn
    cdef bint splits = p.family == CHANNELS and dw_grad_splits(p.rows.taps, p.cols.taps, p.cols.step)
    p.head, p.split = 0, False
    if p.family > PACKED or p.repeat > 1 or p.channels < (2 if splits else 8) * lanes:
        return
    if p.family == PACKED and p.in_place and p.taps <= 9:      # 32 x 7x7x1024 1.2 times as fast; larger kernels 0.98
        strides, x = p.gw | p.gh | p.gn, grad
    elif not splits:
        strides |= p.gw | p.gh | p.gn | (x - grad)
    if strides % lanes == 0:
        p.head = (lanes - <Py_ssize_t> (<size_t> x // sizeof(real)) % lanes) % lanes
        p.split = splits and p.head > 0


# ---- pieces ----

cdef inline void add_sums(real* a, const real* b, Py_ssize_t size) noexcept nogil:
    if real is float:
        grad_add_f32(a, b, size)
    else:
        grad_add_f64(a, b, size)


cdef void write_block(const GradPlan* p, Py_ssize_t block, const real* acc, real* w) noexcept nogil:
    """The sums of a block to their place in w_grad."""
    cdef Py_ssize_t rows = p.rows.taps, taps = p.cols.taps, n, row, first = 0
    if p.wh == taps * p.ww or rows == 1:
        rows, taps = 1, p.taps
    if p.family == ROWS:
        n = p.period
        w += block
    else:
        n, first = dw_min(p.channels, p.lanes), first_channel(p, block)
        w += dw_max(first, 0)
    for row in range(rows):
        if p.family == ROWS:
            if real is float:
                grad_add_lanes_f32(acc, taps, n, w, p.ww)
            else:
                grad_add_lanes_f64(acc, taps, n, w, p.ww)
        elif first < 0:
            if real is float:
                grad_store_split_f32(acc, taps, first, p.channels, w, p.ww)
            else:
                grad_store_split_f64(acc, taps, first, p.channels, w, p.ww)
        elif real is float:
            grad_store_f32(acc, taps, n, w, p.ww)
        else:
            grad_store_f64(acc, taps, n, w, p.ww)
        acc += taps * p.lanes
        w += p.wh


cdef inline void write_blocks(const GradPlan* p, Py_ssize_t first, Py_ssize_t end, const real* acc, real* w) noexcept nogil:
    """The sums of blocks first to end to their places in w_grad."""
    cdef Py_ssize_t sums = p.taps * p.lanes, row, many, taps = p.cols.taps
    while first < end:
        many = dw_min(end - first, p.lanes)
        if p.shifted == 2:
            for row in range(p.rows.taps):
                if real is float:
                    grad_add_pairs_f32(acc + row * taps * p.lanes, taps, many, sums, w + row * p.wh + first, p.ww)
                else:
                    grad_add_pairs_f64(acc + row * taps * p.lanes, taps, many, sums, w + row * p.wh + first, p.ww)
        elif p.family == ROWS and p.period == 1 and many > p.taps:
            for row in range(p.rows.taps):
                if real is float:
                    grad_add_planes_f32(acc + row * taps * p.lanes, taps, many, sums, w + row * p.wh + first, p.ww)
                else:
                    grad_add_planes_f64(acc + row * taps * p.lanes, taps, many, sums, w + row * p.wh + first, p.ww)
        else:
            many = 1
            write_block(p, first, acc, w)
        first += many
        acc += many * sums


cdef inline Py_ssize_t group_start(const GradPlan* p, Py_ssize_t group) noexcept nogil:
    """The first block of a group; where two planes share sums, those of one."""
    cdef Py_ssize_t together = 2 if p.shifted == 2 else 1
    return dw_min(dw_ceil_div(p.blocks, together) * group // p.groups * together, p.blocks)


cdef void grad_task(GradPlan* p, Py_ssize_t task, const real* x, const real* grad, real* w, real* parts,
                    real* scratch) noexcept nogil:
    """One group of blocks, one part of the pieces: a stack of sums, of which two of equal height become one when they meet."""
    cdef Py_ssize_t part = task % p.parts, group = task // p.parts, sums = p.taps * p.lanes
    cdef Py_ssize_t first = group_start(p, group), end = group_start(p, group + 1), size = (end - first) * sums
    cdef Py_ssize_t piece0 = part * p.per_part, piece, unit, height, r0, r1, turn, turns
    cdef Unit u
    cdef real* stack = scratch + p.gathered
    cdef real* top = stack
    for piece in range(piece0, dw_min(piece0 + p.per_part, p.pieces)):
        if p.look and (piece - piece0) % p.look == 0 and stopped(&p.watch):
            return
        memset(top, 0, size * sizeof(real))
        for unit in range(piece * p.per_piece, dw_min((piece + 1) * p.per_piece, p.units)):
            u = make_unit(p, unit)
            if p.runs and unit + 1 < p.units:
                look_ahead(p, &u, unit + 1)
            r0, r1 = u.r0, u.r1
            turns = dw_ceil_div(r1 - r0, p.at_once)
            for turn in range(turns):
                u.r0, u.r1 = r0 + (r1 - r0) * turn // turns, r0 + (r1 - r0) * (turn + 1) // turns
                add_unit(p, &u, first, end, x, grad, top, scratch)
        top += size
        height = piece - piece0 + 1
        while height % 2 == 0:
            top -= size
            add_sums(top - size, <const real*> top, size)
            height //= 2
    while top - stack > size:
        top -= size
        add_sums(top - size, <const real*> top, size)
    if p.parts > 1:
        memcpy(parts + part * p.blocks * sums + first * sums, stack, size * sizeof(real))
        return
    write_blocks(p, first, end, <const real*> stack, w)


cdef void run_grad(GradPlan* p, const real* x, const real* grad, real* w, real* scratch, int workers) noexcept nogil:
    cdef Py_ssize_t task, tasks = p.groups * p.parts, size = p.blocks * p.taps * p.lanes, step = 1, part
    cdef real* parts = scratch + workers * p.scratch
    if workers <= 1:
        for task in range(tasks):
            grad_task(p, task, x, grad, w, parts, scratch)
    else:
        # static: a worker finds in its cache what it had the last time (NCHW, 2 workers: 1.16 times in the mean, NHWC 1.01)
        for task in prange(tasks, schedule="static", num_threads=workers):
            grad_task(p, task, x, grad, w, parts, scratch + threadid() * p.scratch)
    if p.parts > 1:
        while step < p.parts:
            for part in range((p.parts + step - 1) // (2 * step)):
                add_sums(parts + part * 2 * step * size, <const real*> parts + (part * 2 + 1) * step * size, size)
            step *= 2
        write_blocks(p, 0, p.blocks, <const real*> parts, w)


# ---- the plan ----

cdef inline Py_ssize_t near_columns(const GradPlan* p) noexcept nogil:
    """How many columns of outputs to take from rows of pixels, so that a row finds in L1 what it shares with the last.

    A slide keeps three rows of taps and one of the gradient; a vector that is not aligned touches two lines of 64 bytes.  Rows up
    to twice as long are not cut, nor those of other channels and kernels: short slides lose as much (112x112x32: 1.4 times)."""
    cdef Py_ssize_t most = LINE_BYTES // (4 * 128)
    if p.cols.out <= 2 * most or not p.lanes < p.channels <= 4 * p.lanes or p.cols.phases > 1 or p.cols.step > 1 or p.taps > 9:
        return TERMS
    return dw_ceil_div(p.cols.out, dw_ceil_div(p.cols.out, most))


cdef inline int shifted_serve(const GradPlan* p, Py_ssize_t size) noexcept nogil:
    """Whether there are shifted tiles for these rows: 0; 1; 2, of two planes at once; 3, dilated.

    Rows from afar in one block of columns only, since blocks visit every page again (400x400: half as fast as slides); dilated
    ones in two (128x128x256: 2 times as fast, 256x256x32 in four 0.87).  With AVX2 whole rows, each with its sums from memory
    and its borders: those of 33 numbers take 1.4 times as long as planes."""
    cdef const Axis* c = &p.cols
    if p.rows.dilation * c.dilation > 1:
        return 3 if (DW_SHIFTS and p.taps == 9 and c.taps == 3 and p.rows.stride == c.stride == 1
                     and not (p.far and c.out > 8 * p.lanes)) else 0
    if c.out < 7 * p.lanes if DW_VECTOR_BYTES == 32 else p.far and c.out > 4 * p.lanes:
        return 0
    if size == sizeof(float):
        return grad_shifted_serve_f32(p.rows.taps, c.taps, p.rows.stride, c.stride, c.out, c.size, c.pad)
    return grad_shifted_serve_f64(p.rows.taps, c.taps, p.rows.stride, c.stride, c.out, c.size, c.pad)


cdef void set_columns(GradPlan* p, Py_ssize_t size) noexcept nogil:
    """Of planes as channels: the columns of a unit, and p.fit, for the least time of an output by estimate.

    Columns are cut where whole rows do not fit or, in wide vectors, would be turned too often (of 4 lanes: 0.74 to 0.94), and at
    strides only, else tiles of rows win (SSE2, 1000x1000x3: 1.4 times)."""
    cdef Py_ssize_t pixels = SCRATCH_BYTES // (p.lanes * size), n, cols, x_cols, fit, turned
    cdef bint window, cut = p.cols.phases == 1 and p.cols.stride > 1
    cdef double cost, lowest = 0
    p.fit, p.columns = 0, p.cols.out
    for n in range(1, (dw_max(p.cols.out // GRAD_COLUMNS, 1) if cut else 1) + 1):
        if p.fit > 0 and p.lanes < 8:
            break
        window = n > 1        # rows are turned one by one
        cols = dw_ceil_div(p.cols.out, n)
        x_cols = seen(&p.cols, cols) if window else p.cols.size
        fit = (pixels - (p.rows.taps - p.rows.step) * x_cols) // (p.rows.step * x_cols + cols)
        fit = dw_min(fit, dw_min(dw_ceil_div(p.rows.out, p.rows.phases), dw_max(TERMS // dw_max(cols, 1), 1)))
        if fit > 0:
            turned = ((fit - 1) * p.rows.step + p.rows.taps) * (dw_ceil_div(x_cols, p.lanes) + window)
            turned += fit * (dw_ceil_div(cols, p.lanes) + window)
            # a slide along a row begins with columns that it only loads
            cost = (TURN_COST * turned + p.taps * fit * (cols + 2)) / <double> (fit * cols)
            if p.fit == 0 or cost < lowest:
                lowest, p.fit, p.columns = cost, fit, cols


cdef inline bint planes_win(const GradPlan* p) noexcept nogil:
    """Whether planes turned into channels beat vectors along the rows: they do where the last vector of a row is rather empty.

    Measured on rows of 9 to 129 outputs, kernels 3x3 to 9x9, strides 1 and 2: up to which share of its vectors a row loses."""
    cdef Py_ssize_t out = p.cols.out, size = dw_ceil_div(out, p.lanes) * p.lanes, most = 22
    if p.shifted and DW_VECTOR_BYTES == 32:
        return False
    if p.shifted == 3:
        return 4 * out <= 3 * p.lanes
    if p.shifted == 2:             # their sums across lanes cost as much as two images of 7x7
        return 16 * out < 7 * p.lanes or p.cols.stride == 1 and p.images < 4
    if p.shifted and p.taps == 9:
        return out < 12 or 32 * out <= (27 if out <= p.lanes else 21) * size and out <= 2 * p.lanes
    if p.cols.stride > 1 and (p.cols.stride > 2 or p.cols.dilation > 1):
        return True
    if DW_VECTOR_BYTES < 64:       # masks cost more, without AVX2 a branch for each lane
        return DW_VECTOR_BYTES < 32 or p.cols.stride > 1 or out < 8 * p.lanes
    if p.taps > 49:
        most = 32
    elif p.taps > 9 or p.rows.phases > 1:
        most = 30 if out <= 2 * p.lanes else 27
    return out <= p.lanes or out <= 4 * p.lanes and 32 * out <= most * size


cdef inline Py_ssize_t few_rows(const GradPlan* p, Py_ssize_t size) noexcept nogil:
    """How many rows of outputs of FEW_LINES strips fit the scratch as planes, with the rows of x that they see."""
    cdef Py_ssize_t cols = dw_min(p.cols.out, FEW_LINES * p.lanes), x_row = pitch_of(seen(&p.cols, cols))
    cdef Py_ssize_t rest = SCRATCH_BYTES // (p.channels * size) - (p.rows.taps - p.rows.step) * x_row
    return dw_min(rest // (p.rows.step * x_row + pitch_of(cols)), TERMS // FEW_LINES)


cdef inline bint rivals(const GradPlan* p, Py_ssize_t size) noexcept nogil:
    """Whether pixels of x lie so that the rows of a slide are rivals for the same lines of L1.

    Of the 64 sets pixels 2 KB apart use two, pixels 512 bytes apart eight.  Below 2 KB a copy pays only where rows are used twice
    or more (AVX2, 56x56x256, 3x3: stride 1 1.24 times as fast, stride 2 0.85); with AVX-512, where kernels are cut into slides
    that visit the pixels one after the other (28x28x256 7x7 at stride 2 1.9 times, 9x9 1.5; 7x7 at stride 1 0.88), and at
    stride 4 (5x5 1.5)."""
    cdef Py_ssize_t apart = p.xw * p.cols.dilation * size
    if apart % 2048 == 0:
        return True
    if DW_VECTOR_BYTES == 64:
        return (apart % 1024 == 0 and dw_max(p.rows.taps, p.cols.taps) > 5 and p.taps > (9 if p.cols.step == 2 else 49)
                or apart % 512 == 0 and p.cols.step % 4 == 0 and p.taps > 9)
    apart &= -apart           # the largest power of two that divides it
    # a vector for each row of taps and the gradient, that many bytes apart; slides of a dilated row take fewer and gained as much
    return apart >= 512 and p.rows.taps >= 2 * p.rows.step and (p.rows.taps + 1) * p.cols.out * apart > L1_BYTES


cdef inline bint rival_rows(const GradPlan* p, Py_ssize_t apart) noexcept nogil:
    """Whether rows so many bytes apart, one above the other, had better be copied where they fit.

    With AVX-512 those of which the taps lie a multiple of 4 KB apart, rivals for the same lines of L1; others are faster as they
    lie (512x528 3x3 1.5 times, 7x7 1.2).  With AVX2 all of 2 KB and more (7x7 as they lie: 0.6 to 1.1)."""
    if DW_VECTOR_BYTES == 64:
        return apart != 0 and p.rows.dilation * apart % 4096 == 0
    return apart >= COPIED_ROW


cdef inline Py_ssize_t fitting_rows(const GradPlan* p, Py_ssize_t pixel) noexcept nogil:
    """How many rows of outputs fit the scratch, `pixel` bytes a pixel, with the rows of x that they see; none: 0 or less."""
    cdef Py_ssize_t rest = SCRATCH_BYTES // pixel - (p.rows.taps - p.rows.step) * p.cols.size
    return rest // (p.rows.step * p.cols.size + (0 if p.in_place else p.cols.out))


cdef inline bint any_rows(const GradPlan* p) noexcept nogil:
    """Whether any rows of a unit of pixels may be taken by themselves in the same order of sums: of one phase of columns, where
    they are not taken in strips.  Not asked of kernels one tap wide, which go down the columns and are not copied."""
    return p.cols.phases == 1 and not (p.taps == 9 and p.cols.taps == 3 and p.rows.step == p.cols.step == 1
                                       and p.cols.out <= DW_STRIPED)


cdef inline GradFamily choose_family(GradPlan* p, bint last, Py_ssize_t size) noexcept nogil:
    """By geometry only, since rows and channels add in orders of their own."""
    cdef Py_ssize_t rows = dw_ceil_div(p.rows.out, p.rows.phases), unit = TERMS // dw_max(p.cols.out, 1)
    # slides take each number of grad once (of 7x7 taps thrice, 1.1 times; without AVX-512 of 5x5 thrice, 0.94 to 1.1)
    p.in_place = last and p.repeat == 1 and p.channels >= p.lanes and p.rows.taps <= (7 if DW_VECTOR_BYTES == 64 else 3)
    p.fit = fitting_rows(p, p.lanes * size)
    p.shifted, p.down, p.few = 0, 1, False
    # of longer rows than half a vector, but not from memory, where columns are taken 64 at a time (2000x2000x4: 0.6)
    if (last and p.cols.dilation == 1 and p.lanes < 2 * p.cols.out and not p.stream
            and as_planes(p.channels, p.repeat, p.cols.stride, p.lanes // 4) and few_rows(p, size) > 1):
        p.few = True
        if DW_VECTOR_BYTES == 64:
            p.shifted = dw_min(shifted_serve(p, size), 1)
        return ROWS
    if last:
        if p.channels < p.lanes and p.cols.stride == 1:
            return ROWS
        if p.fit > 0 and (p.channels < p.lanes or p.repeat > 1) and (p.taps > 9 or DW_VECTOR_BYTES == 32 and p.repeat > 1):
            return PACKED
        # units copy again what they share, so those of small kernels must be high (3x3: 6 rows of 80 1.15 times as fast, 4 rows
        # of 112 0.91 to 1.07)
        if (rivals(p, size) and p.repeat == 1 and (2 * p.fit >= rows or dw_min(p.fit, unit) * p.taps >= 45)
                and (p.fit >= rows or p.cols.phases == 1 and (p.fit >= unit or any_rows(p)))
                and p.cols.out <= near_columns(p) and (p.cols.taps > 1 or p.rows.taps == 1)):
            return PACKED
        return CHANNELS
    p.shifted = shifted_serve(p, size)
    # fewer planes at a stride for which rows have no tile (224x224x3, 3x3 at stride 3: 1.8 times as fast)
    if p.lanes > 1 and (2 if p.cols.stride < 3 else 8) * p.channels >= p.lanes and planes_win(p):
        set_columns(p, size)
        if p.fit > 0:
            p.shifted = 0
            return PLANES
    if p.shifted == 3:
        p.down, p.rows.dilation, p.rows.phases = p.rows.dilation, 1, 1
    if p.shifted == 2 and p.cols.stride == 1 and rival_rows(p, p.xh * size):     # copied one by one; these sums are the same
        p.shifted = 1
    return ROWS


cdef inline void set_together(GradPlan* p, Py_ssize_t size, Py_ssize_t height) noexcept nogil:
    """Of copied pixels: the blocks of a visit, as many as fit with a unit of `height` rows or with bands of it that share few, of
    p.fit rows (no band is empty: kernels no higher than their stride share none, be the rows too long for the scratch or not).

    Neighbours a power of two apart are rivals for few sets, so that a visit for one line takes about as long as for two."""
    cdef Py_ssize_t copied = dw_min(p.rows.size, (height - 1) * p.rows.step + p.rows.taps) * p.cols.size, pixel, rows
    copied += 0 if p.in_place else height * p.cols.out
    p.together = dw_max(dw_min(p.group, 2 * STAGED_BYTES // (p.lanes * size)), 1)
    while p.together > 1:
        pixel = p.together * p.lanes * size
        # with AVX2 more than STAGED_BYTES do not pay beyond L1 (14x14x512, 3x3: 0.85)
        if copied * pixel <= (L1_BYTES if DW_VECTOR_BYTES == 32 and pixel > STAGED_BYTES else SCRATCH_BYTES):
            p.fit = p.rows.out          # any unit is one band
            return
        rows = fitting_rows(p, pixel)
        # 56x56x512, 3x3 at stride 2: 1.15 to 1.8 times as fast; from pixels 1 KB apart 0.6 to 1
        if (rows > 0 and pixel <= STAGED_BYTES and any_rows(p) and p.cols.dilation * p.xw * size % 2048 == 0
                and rows * p.rows.step >= 2 * (p.rows.taps - p.rows.step)):
            p.fit = rows
            return
        p.together -= 1


cdef void cut(GradPlan* p, Py_ssize_t size, int workers) noexcept nogil:
    """Units and pieces by geometry only; groups and parts for the workers."""
    cdef Py_ssize_t rows = dw_ceil_div(p.rows.out, p.rows.phases), most = TERMS, levels = 2, n
    cdef Py_ssize_t height, share, numbers = p.rows.size * p.cols.size + p.rows.out * p.cols.out    # of x and grad in a channel
    cdef Py_ssize_t want = dw_max(4 * workers, <Py_ssize_t> min(p.watch.rounds, 32.0))    # a signal waits for the last task
    cdef bint whole_rows = p.family == ROWS and p.shifted and DW_VECTOR_BYTES == 32
    p.line, p.strip = p.cols.out, p.lanes // p.period * p.period
    if p.family == ROWS:
        p.line = dw_ceil_div(p.cols.out * p.period, p.strip)
        most = TERMS if whole_rows else FEW_LINES if p.few else DW_MOST_LINES
    elif p.family == CHANNELS:
        most = near_columns(p)
    elif p.family == PLANES:
        most = dw_min(p.columns, TERMS)
    p.chunks = dw_ceil_div(p.line, most)
    height = TERMS // dw_max(dw_ceil_div(p.line, dw_max(p.chunks, 1)), 1)
    if p.family == ROWS and not whole_rows and (p.period > 1 or rival_rows(p, p.cols.size * size)):
        height = 32                # copies of them fit the scratch; 16 of 16 strips were 3 % slower
    if p.few:
        height = few_rows(p, size)
    p.bands = dw_ceil_div(rows, height)
    p.units = p.images * p.rows.phases * p.bands * p.chunks
    p.per_piece = dw_max(1, TERMS // (dw_ceil_div(rows, p.bands) * dw_ceil_div(p.line, p.chunks)))
    p.pieces = dw_ceil_div(p.units, p.per_piece)
    p.blocks = dw_ceil_div(p.channels, p.lanes) if p.split else dw_ceil_div(p.channels - p.head, p.lanes) + (p.head > 0)
    p.group = 1
    if p.family == ROWS:
        p.blocks = p.channels // p.period
        if p.bands * p.chunks * p.rows.phases == 1:      # planes that are one unit of their image
            p.group = dw_max(1, dw_min(dw_min(p.blocks, 16), PLANE_BYTES // size // dw_max(numbers, 1)))
    elif p.family != PLANES:
        p.group = dw_max(1, dw_min(p.blocks, GROUP_BYTES // (p.taps * p.lanes * size)))
    if workers > 1:
        share = p.blocks // want
        if p.far and (p.family == CHANNELS or p.family == PACKED):   # large shares of each pixel (145x145x200: 2 times as fast)
            share = dw_ceil_div(p.blocks, workers)
        p.group = dw_max(1, dw_min(p.group, share))
    if p.shifted == 2:
        p.group += p.group % 2
    if p.few:
        p.group = p.blocks
    p.groups = dw_ceil_div(p.blocks, p.group)
    p.together = p.group if p.family == CHANNELS else 1
    if p.family == ROWS:
        p.in_place = p.gw == p.period and not p.few
    elif p.family == PACKED and p.repeat == 1 and p.channels >= p.lanes:
        set_together(p, size, dw_ceil_div(rows, p.bands))
    p.at_once = p.rows.out
    # a vector is half a line, and at stride 2 its lines are many: few rows, so that the other half's turn finds them in L2
    # (8 x 112x112x64 1.24 times as fast, 56x56x128 1.35; turns of fewer than 112 outputs 0.8 to 0.96).  Not where that would
    # change the order of the sums: phases of columns follow each other, kernels one tap wide are summed column by column
    if (p.family == CHANNELS and DW_VECTOR_BYTES == 32 and p.group > 1 and p.rows.step > 1 and p.cols.step > 1
            and p.cols.phases == 1 and p.cols.taps > 1):
        p.at_once = dw_max(4, dw_ceil_div(112, dw_max(p.cols.out, 1)))
    p.per_part = 1
    while p.per_part < p.pieces and (workers <= 1 or p.groups * dw_ceil_div(p.pieces, p.per_part) > want):
        p.per_part *= 2
    p.parts = dw_ceil_div(p.pieces, p.per_part)
    p.look = dw_max(<Py_ssize_t> (p.groups * p.pieces / (p.watch.rounds * workers)), 1) if p.watch.rounds > 1 else 0
    n = p.per_part
    while n > 1:
        levels += 1
        n //= 2
    p.gathered = 0
    if p.family == PLANES or p.family == PACKED or p.few or (
            p.family == ROWS and p.cols.stride == 1 and p.shifted < 3 and not whole_rows
            and (rival_rows(p, p.xh * size) or p.period > 1 and (p.xw * p.repeat != p.period or p.gw != p.period))):
        p.gathered = SCRATCH_BYTES // size
    if p.family == ROWS and (p.few or not p.gathered):
        p.together = p.group
    p.runs = (p.stream and p.family == CHANNELS and p.repeat == 1 and p.channels >= p.lanes
              and p.rows.stride == p.cols.stride == p.rows.phases == p.cols.phases == 1 and (p.cols.taps > 1 or p.rows.taps == 1)
              and 2 * size * p.group * p.lanes * dw_ceil_div(rows, p.bands) * dw_ceil_div(p.cols.out, p.chunks) <= RUN_BYTES)
    # from afar a slide's lines would come one by one (8 x 28x28x240 k5: 1.7 times the time); from the caches this costs a tenth
    p.ahead = 0
    if p.far and p.gathered and p.in_place:
        p.ahead = p.lanes if p.family == PACKED else most * p.strip
    elif p.far and not p.runs and not p.gathered and not whole_rows and (p.family != CHANNELS or p.channels > 4 * p.lanes):
        p.ahead = p.lanes
    p.scratch = p.gathered + levels * p.group * p.taps * p.lanes


cdef bint _kernel_grad(bint last, const real[:, :, :, :] x, const real[:, :, :, :] grad, real[:, :, :] w, tuple rows, tuple cols,
                       int workers) except -1:
    cdef GradPlan p
    cdef Extent e = extent(<Py_ssize_t> &w[0, 0, 0], w.shape, w.strides, 3, sizeof(real))
    cdef Py_ssize_t size = sizeof(real), numbers
    cdef Py_ssize_t h = 1 if last else 2, c = 3 if last else 1    # axes of the rows (columns follow) and channels
    cdef real* scratch
    p.x = extent(<Py_ssize_t> &x[0, 0, 0, 0], x.shape, x.strides, 4, size)
    p.grad = extent(<Py_ssize_t> &grad[0, 0, 0, 0], grad.shape, grad.strides, 4, size)
    if meet(e, p.x) or meet(e, p.grad):
        return False
    p.rows, p.cols = make_axis(rows), make_axis(cols)
    p.images, p.channels, p.repeat = x.shape[0], w.shape[2], w.shape[2] // x.shape[c]
    p.xn, p.xc = elements(x.strides[0], x.shape[0], size), elements(x.strides[c], x.shape[c], size)
    p.xh, p.xw = elements(x.strides[h], x.shape[h], size), elements(x.strides[h + 1], x.shape[h + 1], size)
    p.gn, p.gc = elements(grad.strides[0], grad.shape[0], size), elements(grad.strides[c], grad.shape[c], size)
    p.gh, p.gw = elements(grad.strides[h], grad.shape[h], size), elements(grad.strides[h + 1], grad.shape[h + 1], size)
    # the one column of an image has any stride; flat rows take it as one without gaps
    p.xw = p.xw if x.shape[h + 1] > 1 else x.shape[3] if last else 1
    p.gw = p.gw if grad.shape[h + 1] > 1 else grad.shape[3] if last else 1
    p.wh, p.ww = elements(w.strides[0], w.shape[0], size), elements(w.strides[1], w.shape[1], size)
    p.watch = make_watch(<double> p.images * p.channels * p.rows.out * p.cols.out * p.rows.taps * p.cols.taps, workers)
    p.lanes, p.taps = lanes_of(size), w.shape[0] * w.shape[1]
    numbers = touched_bytes(&p.rows, &p.cols, p.images, p.channels, p.repeat, size)
    p.far, p.stream = numbers > FAR_BYTES, numbers > STREAM_BYTES
    p.family = choose_family(&p, last, size)
    p.period = p.channels if last and p.family == ROWS and not p.few else 1
    set_head(&p, &x[0, 0, 0, 0], &grad[0, 0, 0, 0])
    cut(&p, size, workers)
    numbers = dw_max(workers, 1) * p.scratch + (p.parts * p.blocks * p.taps * p.lanes if p.parts > 1 else 0)
    scratch = <real*> aligned_alloc(64, (numbers * size + 63) // 64 * 64)
    if not scratch:
        raise MemoryError
    with nogil:
        run_grad(&p, &x[0, 0, 0, 0], &grad[0, 0, 0, 0], &w[0, 0, 0], scratch, workers)
        free(scratch)
    return -1 if p.watch.stop else True


def kernel_grad(str data_format, x, grad, w_grad, tuple rows, tuple cols, int workers):
    """Writes the gradient of the kernel to w_grad, and says so; False, and nothing done, if it may share memory with an input.

    x, grad, w_grad: arrays as above, all float32 or all float64, the innermost axis of each without gaps.
    rows, cols: the forward's axes (size, out, taps, stride, dilation, pad), see _geometry.py.
    """
    cdef bint last = data_format == "channels_last"
    if w_grad.itemsize == sizeof(float):
        return _kernel_grad[float](last, x, grad, w_grad, rows, cols, workers)
    return _kernel_grad[double](last, x, grad, w_grad, rows, cols, workers)
