# cython: language_level=3
"""Ways of the forward through a scratch: what of x a band of rows needs lies there as pixels of some channels, without gaps.

    x (N, C, H, W), y (N, C*M, OH, OW)     planes as channels: a vector's number of planes, turned into pixels and back; a band
                                           of whole rows or of some columns, which may see the inputs in chunks
    x (N, H, W, C), y (N, OH, OW, C)       pixels a power of two apart: some channels of each, since whole pixels share few sets
                                           of the nearest cache; phase by phase where the kernel is dilated.  With a
                                           multiplier (AVX2): as vectors of outputs

Part of _kernels.pyx.  The tiles are those of channels_last, so the order of sums is theirs.  Which images go these ways is
measured: turning and copying cost several multiply-adds of every number.

Refused here: argument checks, scratch beyond SCRATCH_BYTES a worker, planes with gaps between rows.
"""

cdef extern from *:
    void copy_pixels_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*, bint) nogil
    void copy_pixels_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, bint) nogil
    void pack_pixels_f32(const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         Py_ssize_t, float*) nogil
    void pack_pixels_f64(const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         Py_ssize_t, double*) nogil
    void gather_planes_f32(const float* const*, Py_ssize_t, Py_ssize_t, float*, bint) nogil
    void gather_planes_f64(const double* const*, Py_ssize_t, Py_ssize_t, double*, bint) nogil
    void scatter_planes_f32(const float*, Py_ssize_t, float*, Py_ssize_t, Py_ssize_t) nogil
    void scatter_planes_f64(const double*, Py_ssize_t, double*, Py_ssize_t, Py_ssize_t) nogil


# ---- through the scratch: what of x a band of rows needs, as pixels without gaps ----

cdef inline Py_ssize_t seen(const Axis* a, Py_ssize_t outputs) noexcept nogil:
    """How many inputs so many neighbouring outputs see at most."""
    return dw_min((outputs - 1) * a.stride + (a.taps - 1) * a.dilation + 1, a.size)


cdef inline Axis columns_of(const Axis* a, Py_ssize_t out0, Py_ssize_t out1, Py_ssize_t* in0) noexcept nogil:
    """The axis of outputs out0 to out1, of one phase, and of the inputs that they see, from in0[0] on."""
    cdef Axis b = a[0]
    cdef Py_ssize_t first = out0 * a.stride - a.pad
    in0[0] = dw_min(dw_max(first, 0), a.size)
    b.size = dw_max(dw_min((out1 - 1) * a.stride - a.pad + (a.taps - 1) * a.dilation + 1, a.size) - in0[0], 0)
    b.out, b.pad = out1 - out0, in0[0] - first
    return b


cdef inline Axis phase_of(const Axis* a, Py_ssize_t f, Py_ssize_t* in0) noexcept nogil:
    """Phase f as an axis without dilation, of every dilation-th input from in0[0] on."""
    cdef Axis b = a[0]
    cdef Phase phase = make_phase(a, f)
    b.pad = dw_max(phase.lo, 0)
    b.size, b.out = dw_max(phase.hi - b.pad, 0), phase.out
    b.stride, b.dilation, b.phases = a.step, 1, 1
    in0[0] = phase.first + b.pad * a.dilation
    return b


cdef struct Band:
    Py_ssize_t q0, q1         # rows of a phase
    Py_ssize_t r0, r1         # output rows
    Py_ssize_t in0, in1       # input rows


cdef inline Band band_of(const Plan* p, Py_ssize_t band) noexcept nogil:
    """Of p.bands, each of whole turns of the row phases."""
    cdef Band b
    cdef Py_ssize_t turns = dw_ceil_div(p.rows.out, p.rows.phases)
    b.q0, b.q1 = turns * band // p.bands, turns * (band + 1) // p.bands
    b.r0, b.r1 = b.q0 * p.rows.phases, dw_min(b.q1 * p.rows.phases, p.rows.out)
    b.in0 = dw_max(b.r0 * p.rows.stride - p.rows.pad, 0)
    b.in1 = dw_min((b.r1 - 1) * p.rows.stride - p.rows.pad + (p.rows.taps - 1) * p.rows.dilation + 1, p.rows.size)
    return b


cdef inline Py_ssize_t weight_room(const Plan* p) noexcept nogil:
    """Bytes of the scratch for the weights and bias of p.staged bytes of channels; 0: those are used where they lie."""
    cdef Py_ssize_t room = (p.rows.taps * p.cols.taps + 1) * p.staged
    return room if room <= WEIGHT_BYTES else 0


cdef inline void copy_pixels(const real* x, Py_ssize_t rows, Py_ssize_t row, Py_ssize_t cols, Py_ssize_t pixel,
                             Py_ssize_t channels, real* block, bint far) noexcept nogil:
    if real is float:
        copy_pixels_f32(x, rows, row, cols, pixel, channels, block, far)
    else:
        copy_pixels_f64(x, rows, row, cols, pixel, channels, block, far)


cdef inline void pack(const real* x, Py_ssize_t rows, Py_ssize_t row, Py_ssize_t cols, Py_ssize_t pixel, Py_ssize_t first,
                      Py_ssize_t channels, Py_ssize_t repeat, Py_ssize_t width, real* block, bint far) noexcept nogil:
    """Rows that lie `row` apart, `width` of their channels from `first` on, of which `repeat` share one of x."""
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    if repeat == 1 and channels >= lanes:
        copy_pixels(x + first, rows, row, cols, pixel, width, block, far)
    elif real is float:
        pack_pixels_f32(x, rows, row, cols, pixel, first, dw_min(width, channels - first), repeat, channels // repeat, block)
    else:
        pack_pixels_f64(x, rows, row, cols, pixel, first, dw_min(width, channels - first), repeat, channels // repeat, block)


cdef inline const real* near_weights(Plan* p, const real* w, const real* bias, Py_ssize_t channels,
                                     real* scratch) noexcept nogil:
    """The weights of some channels, at the end of the scratch if they fit, packed where tiles want that: tiles load them often,
    and taps a power of two apart share sets of the cache with the pixels of the result."""
    cdef dw_geometry* g = &p.geometry
    cdef Py_ssize_t taps = p.rows.taps * p.cols.taps
    g.wh, g.ww, g.packed = p.wh, p.ww, 0
    if not weight_room(p):
        return w
    scratch += (SCRATCH_BYTES - weight_room(p)) // <Py_ssize_t> sizeof(real)
    if dw_takes_all(p.rows.taps, p.cols.taps, p.rows.step, p.cols.step):
        g.packed = 1
        pack_weights(g, w, bias, 0, dw_ceil_div(channels, lanes_of(sizeof(real))), channels, False, scratch)
        return scratch
    if p.wh != p.cols.taps * p.ww:
        return w
    copy_pixels(w, 1, 0, taps, p.ww, channels, scratch, False)
    g.wh, g.ww = p.cols.taps * channels, channels
    return scratch


cdef void scratch_blocks(Plan* p, const Band* band, const real* scratch, Py_ssize_t channels, const real* w, const real* bias,
                         real* y, Py_ssize_t row, Py_ssize_t col) noexcept nogil:
    """The band of an image of `channels` channels in the scratch; y: of output row 0, `row` and `col` from one to the next."""
    cdef dw_geometry* g = &p.geometry
    cdef Py_ssize_t fh, fw
    cdef Phase rows, cols
    g.xw, g.xh = p.cols.dilation * channels, p.rows.dilation * p.cols.size * channels
    g.yw, g.yh = p.cols.phases * col, p.rows.phases * row
    g.far, g.stream = 0, 0    # the scratch is near
    for fh in range(p.rows.phases):
        rows = make_phase(&p.rows, fh)
        for fw in range(p.cols.phases):
            cols = make_phase(&p.cols, fw)
            g.x0 = ((rows.first - band.in0) * p.cols.size + cols.first) * channels
            g.row_lo = dw_max(rows.lo, dw_ceil_div(band.in0 - rows.first, p.rows.dilation))
            g.row_hi = dw_min(rows.hi, dw_ceil_div(band.in1 - rows.first, p.rows.dilation))
            g.col_lo, g.col_hi, g.cols = cols.lo, cols.hi, cols.out
            channel_blocks(g, scratch, w, bias, y + fh * row + fw * col, band.q0, dw_min(band.q1, rows.out), 0,
                           dw_ceil_div(channels, lanes_of(sizeof(real))), channels)


# ---- channels_last, pixels a power of two apart: they share few sets of the nearest cache ----

cdef inline bint shares_sets(const Plan* p, Py_ssize_t size, Py_ssize_t columns) noexcept nogil:
    """Whether the pixels that neighbouring taps see, a power of two apart, lose the nearest cache to each other before a tile
    needs them again.  columns: of a row of a phase."""
    cdef Py_ssize_t pitch = p.cols.dilation * p.xw * size
    cdef bint three = p.rows.taps == p.cols.taps == 3 and p.rows.step == p.cols.step <= 2
    if three and p.rows.step == 2 and DW_VECTOR_BYTES >= 32:
        return False          # tiles of one column, see dw_one_column
    # in place 2 KB apart takes 0.66 to 0.98 of the time (14x14x512, 64 of them), 4 KB 1.1 to 1.6, but for dilated pixels that lie
    # 1 KB apart 0.63 to 1.15
    if DW_VECTOR_BYTES == 64 and three and (pitch % 4096 != 0 or p.xw * size % 2048 != 0):
        return False
    if DW_VECTOR_BYTES != 32:   # from 1 KB on 9x9 kernels are 1.13 times as fast (28x28x256), 7x7 at stride 2 0.98
        return pitch % (1024 if p.rows.taps * p.cols.taps > 49 else 2048) == 0
    if three and p.geometry.far > 1 and pitch % 4096 != 0:
        return False          # see in_order of _tiles.h
    if p.rows.taps * p.cols.taps <= 9:   # takes all channels in turn: the pixels of one tile
        return pitch % 2048 == 0
    # half a line at a time: the rows that the kernel spans, in a cache of 8 ways of 64 lines (28x28x256 5x5: 1.6 times as fast)
    return pitch % 512 == 0 and p.rows.taps * columns * gcd(64, pitch // 64) > 8 * 64


cdef Py_ssize_t spread_rows(Plan* p, Py_ssize_t size) noexcept nogil:
    """As staged_rows, where a depth multiplier repeats the numbers of pixels: as the vectors of outputs that they serve.  Of long
    rows some columns at a time, p.windows."""
    cdef Py_ssize_t taps = p.rows.taps * p.cols.taps, shared = p.rows.taps - p.rows.step, rest, rows, columns
    cdef Py_ssize_t inputs = dw_ceil_div(p.rows.size, p.rows.dilation), all_columns = dw_ceil_div(p.cols.size, p.cols.dilation)
    cdef Py_ssize_t outputs = dw_ceil_div(p.cols.out, p.cols.phases)
    if DW_VECTOR_BYTES != 32 or p.channels * size < DW_VECTOR_BYTES or taps == 1:    # not measured with others
        return 0
    p.windows = 1
    # (640x480x8, M = 2, 3x3 at stride 2: in place 2.5 ms, in windows 3)
    while p.windows == 1 or p.windows * SPREAD_COLUMNS < outputs and (taps > 9 or p.rows.step == 1):
        columns = dw_min((dw_ceil_div(outputs, p.windows) - 1) * p.cols.step + p.cols.taps, all_columns)
        p.staged = (2 if taps <= 9 and p.rows.step == 1 else 1) * DW_VECTOR_BYTES     # larger kernels: the same or 0.9
        while p.staged >= DW_VECTOR_BYTES and columns > 0:
            rest = (SCRATCH_BYTES - weight_room(p)) // p.staged // columns
            if inputs <= rest:
                return dw_ceil_div(p.rows.out, p.rows.phases)
            rows = (rest - p.rows.taps) // p.rows.step + 1 if rest >= p.rows.taps else 0
            if rows and rows * p.rows.step * taps >= 24 * shared:
                return rows
            p.staged //= 2
        p.windows += 1
    return 0


cdef Py_ssize_t staged_rows(Plan* p, Py_ssize_t size) noexcept nogil:
    """Output rows of a phase whose inputs fit the scratch, p.staged bytes of each, which is set; 0 where that does not help."""
    cdef Py_ssize_t span = p.rows.taps, shared = span - p.rows.step, most = 1, rest, rows, served
    cdef Py_ssize_t inputs = dw_ceil_div(p.rows.size, p.rows.dilation), columns = dw_ceil_div(p.cols.size, p.cols.dilation)
    cdef bint small = p.rows.taps * p.cols.taps <= 9
    if p.repeat > 1:
        return spread_rows(p, size)
    p.windows = 1
    if (p.xw == 0 or p.channels * size < DW_VECTOR_BYTES or p.rows.taps * p.cols.taps == 1
            or not DW_VECTOR_BYTES or not shares_sets(p, size, columns)):
        return 0
    # so few columns of a phase serve too few multiply-adds (33x33x1024 3x3 dilated by 12: copied 442 us, in place 257)
    if p.cols.dilation > 1 and columns < (6 if small else p.cols.taps):
        return 0
    # from memory: to wait for every line takes longer than any copy (AVX2, 24 x 14x14x1024 5x5: 18 ms, copied 5.6), but not with
    # AVX-512 in 3x3 tiles, which read in order, and larger ones over pixels 2 KB apart (12 x 28x28x512 7x7: copied 0.66)
    if p.geometry.stream and DW_VECTOR_BYTES == 64 and (small or p.xw * size % 4096 != 0):
        return 0
    # rows of a band to those that it shares with others, which are copied twice: the less a copy serves, the more of them
    if p.rows.step > 1:
        most = 16 if small else 2
    elif small:
        most = 3
    # a visit to a pixel takes as many bytes as fit with the whole map or many rows of it, be the scratch larger than L1 (1024
    # channels, 3x3: 10x10 1.33 times as fast as with 128 bytes, 14x14 1.25); larger kernels load what is there more often,
    # and at stride 2 less of it (14x14x512 5x5 0.93 with 256)
    if small:
        p.staged = 4 * STAGED_BYTES
    else:
        p.staged = (2 if p.rows.step == 1 or inputs * columns <= 64 else 1) * STAGED_BYTES
    while True:
        rest = (SCRATCH_BYTES - weight_room(p)) // p.staged // columns
        if inputs <= rest:
            return dw_ceil_div(p.rows.out, p.rows.phases)
        rows = (rest - span) // p.rows.step + 1 if rest >= span else 0
        served = rows * p.rows.step
        if rows and served >= (dw_max(most, 3) if p.staged > STAGED_BYTES else most) * shared + (most == 1):
            return rows
        if p.staged <= (STAGED_BYTES if small else STAGED_BYTES // 2):
            # more taps pay for more copies, one about 24 multiply-adds (56x56x512 9x9 2.0 times as fast, 9x9 at stride 3 1.4)
            return rows if not small and served * p.rows.taps * p.cols.taps >= 24 * shared else 0
        p.staged //= 2


cdef void staged_task(const Plan* shared, Py_ssize_t task, const real* x, const real* w, const real* bias, real* y,
                      real* scratch) noexcept nogil:
    """One image, one phase of its rows, one band of these, one group of channels; p.staged bytes of them at a time."""
    cdef Plan p = shared[0]
    cdef Band band
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), step = p.staged // <Py_ssize_t> sizeof(real), c, channels, fw
    cdef Py_ssize_t chunks = dw_ceil_div(p.channels - p.start, step), group = task % p.groups, row0 = 0, col0 = 0
    cdef Py_ssize_t at = p.start + chunks * group // p.groups * step, end = p.start + chunks * (group + 1) // p.groups * step
    cdef Py_ssize_t fh = task // (p.groups * p.bands) % p.rows.phases, n = task // (p.groups * p.bands * p.rows.phases)
    cdef Py_ssize_t window, out0, out1, in0 = 0
    cdef Axis cols
    cdef const real* near
    cdef const real* own
    p.rows = phase_of(&shared.rows, fh, &row0)
    band = band_of(&p, task // p.groups % p.bands)
    x += n * p.xn + (row0 + band.in0 * shared.rows.dilation) * p.xh
    y += n * p.yn + fh * p.yh
    while at < end:
        c = dw_max(dw_min(at, p.channels - lanes), 0)
        at += step
        channels = dw_max(dw_min(at, p.channels) - c, lanes)      # the first chunk may be cut by the alignment
        own = bias + c if bias else bias
        near = near_weights(&p, w + c, own, channels, scratch)    # once for all column phases
        for fw in range(shared.cols.phases):
            cols = phase_of(&shared.cols, fw, &col0)
            for window in range(p.windows):
                out0, out1 = cols.out * window // p.windows, cols.out * (window + 1) // p.windows
                p.cols = columns_of(&cols, out0, out1, &in0)
                pack(x + (col0 + in0 * shared.cols.dilation) * p.xw, band.in1 - band.in0, shared.rows.dilation * p.xh,
                     p.cols.size, shared.cols.dilation * p.xw, c, p.channels, p.repeat, channels, scratch, shared.geometry.far)
                scratch_blocks(&p, &band, scratch, channels, near, own, y + (fw + out0 * shared.cols.phases) * p.yw + c,
                               shared.rows.phases * p.yh, shared.cols.phases * p.yw)


cdef void run_staged(Plan* p, const real* x, const real* w, const real* bias, real* y, real* scratch, Py_ssize_t rows,
                     int workers) noexcept nogil:
    """rows: of a phase, of a band at most; p.staged: bytes of each pixel at a time."""
    cdef Py_ssize_t task, tasks, turns = dw_ceil_div(p.rows.out, p.rows.phases)
    fill_geometry(p)
    if p.rows.step > 1:       # more of x is loaded than of y stored
        set_blocks(p, x, p.xw | p.xh | p.xn, 8, False)
    else:
        set_blocks(p, y, p.yw | p.yh | p.yn, 8, False)
    p.geometry.sw = p.cols.step
    p.bands = dw_ceil_div(turns, rows)
    p.groups = 1
    if p.bands == 1 and share_channels(p, (p.channels - p.start) // (p.staged // <Py_ssize_t> sizeof(real)), workers):
        p.groups = workers
    p.bands = even_shares(p.bands, dw_max(p.bands, turns // 2), p.images * p.rows.phases * p.groups, workers)
    p.bands = for_rounds(p, p.bands, turns, p.images * p.rows.phases, workers)
    tasks = p.images * p.rows.phases * p.bands * p.groups
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                staged_task(p, task, x, w, bias, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                staged_task(p, task, x, w, bias, y, scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))


# ---- channels_first, a vector's number of planes at a time as channels ----

cdef bint row_tiles_win(const Plan* p, int shifted, bint down, Py_ssize_t lanes) noexcept nogil:
    """Whether vectors along the rows beat planes as channels: they do where the last vector of a row is not too empty.

    Measured for each kernel and stride on rows of 8 to 150: up to how many 16ths of its vectors, of which the last may be a
    half, a row loses.  shifted: whether there are shifted tiles for it; 2: for two planes at once.  down: whether there is a
    way down the columns."""
    cdef Py_ssize_t k = p.rows.taps, s = p.cols.stride, size = dw_ceil_div(p.cols.out, lanes) * lanes, most = 16
    cdef bint large = p.rows.size * p.cols.size > SCRATCH_BYTES // dw_max(DW_VECTOR_BYTES, 1)     # of a plane, about
    if down and 16 * p.cols.out >= 10 * size and (p.cols.taps == 1 or k * p.cols.taps <= (4 if DW_VECTOR_BYTES == 64 else 3)):
        return True
    if (s > 1 and not shifted and DW_VECTOR_BYTES >= 32 and p.cols.out >= WIDE_ROW and 8 * p.cols.out > 7 * size
            and (DW_VECTOR_BYTES == 4 * lanes or k * p.cols.taps <= WINDOW_TAPS)):
        return True           # parted; such planes are turned in bands, which share rows (224x224, 4x4 at stride 2: 1.28)
    if k != p.cols.taps or s != p.rows.stride or s > 2:
        return False
    if shifted and DW_VECTOR_BYTES == 32:     # 2x2, 3x3: turned planes take up to 1.8 times as long, of shorter rows 0.75 to 0.95
        return 2 * p.cols.out > lanes
    if shifted and p.cols.dilation > 1:
        return 16 * p.cols.out > 9 * size
    if shifted == 2 and p.repeat == 1 and p.channels > 1:
        return p.cols.out >= 4
    if shifted:
        if p.cols.out > lanes and (k > 3 or s == 1):     # half vectors end rows, see ends_by_half
            size = dw_ceil_div(2 * p.cols.out, lanes) * (lanes // 2)
            if k == 7 and s == 1:
                return 32 * p.cols.out > (27 - large) * size
        if k <= 3:
            most = 7 if k == 3 else 4
        elif s == 2 and p.cols.out > lanes:
            most = 9 if k <= 5 else 12
        elif s == 1 and p.cols.out <= lanes and p.rows.out <= 12:
            return False      # too few rows for what each beyond a border costs (8x8x256, float64, 7x7: 0.77)
        else:                 # of planes that do not fit the scratch bands turn the rows that they share twice
            most = k + 7 - large
        return 16 * p.cols.out > most * size
    if DW_VECTOR_BYTES < 64:  # fewer registers; and masks cost more, without AVX2 a branch for each lane
        return DW_VECTOR_BYTES == 32 and s == 1 and (
            k == 3 and p.cols.out >= 4 * lanes and 8 * p.cols.out > 7 * size or (k == 5 or k == 7) and p.cols.size >= LONG_ROW)
    if s == 2 and (p.rows.step != 2 or p.cols.dilation > 1):
        return False
    if k == 3:
        most = 9 if s == 1 else 12
    elif k == 5 and p.cols.out > lanes:
        most = 13 if s == 1 else 14
    elif k == 7 and (s == 1 and p.cols.size >= LONG_ROW or s == 2 and p.cols.out > lanes):
        most = 12
    return most < 16 and (p.cols.out > 3 * lanes or 16 * p.cols.out > most * size)


cdef double plane_cost(const Plan* p, Py_ssize_t lanes, Py_ssize_t rows, Py_ssize_t wide, Py_ssize_t inputs, Py_ssize_t chunk,
                       bint window) noexcept nogil:
    """Of an output, in a band of so many rows and columns, in multiply-adds: its own in whole tiles, turning it and its share of
    the inputs, and its wait for each chunk of these after the first.  window: rows are turned one by one."""
    cdef Py_ssize_t high = seen(&p.rows, rows)
    cdef Py_ssize_t turned = high * (dw_ceil_div(inputs, lanes) + window) + rows * (dw_ceil_div(wide, lanes) + window)
    cdef double cost = TURN_COST * turned / <double> rows
    cost += p.rows.taps * p.cols.taps * dw_ceil_div(wide, DW_ANY_COLS) * DW_ANY_COLS
    return cost / wide + RESUME_COST * ((high - 1) // chunk)


cdef Py_ssize_t plane_rows(Plan* p, Py_ssize_t size) noexcept nogil:
    """Output rows of a band, whose input rows fit the scratch as blocks of channels; 0 where that is not worth it.

    Sets how many turns of them are turned back at a time: all, or what fits beside a plane that fits whole.  Into how many
    windows their columns are cut: with strides, where whole rows are too long (112x112, 9x9 at stride 3: 4 times as fast as
    tiles of rows).  And how many input rows are turned at a time: all, or, in windows or not, chunks of them, for which the
    outputs wait in half of the scratch, where a kernel is high (56x56, 31x31: 1.7 times as fast as tiles of rows)."""
    cdef Py_ssize_t pixels = SCRATCH_BYTES // dw_max(DW_VECTOR_BYTES, 1) if DW_VECTOR_BYTES else 0, f = p.rows.phases, rows
    cdef Py_ssize_t least = dw_ceil_div(dw_min(TURNED_ROWS, p.rows.out), f) * f, taps = p.rows.taps * p.cols.taps
    cdef Py_ssize_t shared = (p.rows.taps - 1) * p.rows.dilation + 1 - p.rows.stride, lanes = lanes_of(size), best = 0
    cdef Py_ssize_t n, wide, inputs, chunk = p.rows.size + 1
    cdef double cost, lowest = 0, filled
    cdef bint chunks, cut = p.cols.phases == 1 and taps >= WINDOW_TAPS
    if p.channels * size < DW_VECTOR_BYTES or not p.dense:
        return 0
    p.windows, p.chunk = 1, chunk
    if p.rows.size * p.cols.size + least * p.cols.out <= pixels:
        p.turns = (pixels - p.rows.size * p.cols.size) // p.cols.out
        p.turns = (p.turns if p.turns >= p.rows.out else p.turns // least * least + f - 1) // f
        return p.rows.out
    for chunks in range(2):
        if chunks:
            if DW_VECTOR_BYTES < 64 or p.cols.taps == 1 or taps < CHUNK_TAPS:
                break         # with AVX2, whose scratch holds twice as many pixels, 0.8 to 1.3 times as fast
            lowest *= 0.9     # so much cheaper at least: the costs are estimates
            if p.cols.stride == 1:    # tiles of rows take more where their last vectors, two at a time, are not full
                filled = p.cols.out / <double> (dw_ceil_div(p.cols.out, 2 * lanes) * 2 * lanes)
                if best == 0 or lowest > 1.12 * taps / (filled * filled):
                    lowest = 1.12 * taps / (filled * filled)
        for n in range(1, dw_ceil_div(p.cols.out, DW_ANY_COLS) + 1):
            if n > 1 and not (cut and (chunks or p.cols.stride > 1 and not (best and p.windows == 1))):
                break
            wide, inputs = dw_ceil_div(p.cols.out, n), p.cols.size        # whole rows are turned with what no output sees
            if n > 1:
                inputs = seen(&p.cols, wide)
            rows = pixels // (2 * wide) if chunks else (pixels - shared * inputs) // (p.rows.stride * inputs + wide)
            if rows < f or not chunks and 2 * rows * p.rows.stride < shared and rows * taps < 16 * shared:
                continue      # turning what bands share would be most of the work
            rows = dw_min(rows // f, dw_ceil_div(p.rows.out, f)) * f
            if chunks:
                chunk = dw_max((pixels - rows * wide) // inputs, 1)
                if rows * wide + chunk * inputs > pixels:
                    continue
            cost = plane_cost(p, lanes, rows, wide, inputs, chunk, n > 1)
            if lowest == 0 or cost < lowest:
                best, lowest, p.windows, p.chunk, p.turns = rows, cost, n, chunk, rows // f
    return best


cdef inline void gather_pixels(const real* const* planes, Py_ssize_t at, Py_ssize_t pixels, real* block, bint far) noexcept nogil:
    if real is float:
        gather_planes_f32(planes, at, pixels, block, far)
    else:
        gather_planes_f64(planes, at, pixels, block, far)


cdef inline void scatter_pixels(const real* block, Py_ssize_t pixels, real* y, Py_ssize_t pitch, Py_ssize_t skip) noexcept nogil:
    if real is float:
        scatter_planes_f32(block, pixels, y, pitch, skip)
    else:
        scatter_planes_f64(block, pixels, y, pitch, skip)


cdef void plane_task(const Plan* shared, Py_ssize_t task, const real* x, const real* w, const real* bias, real* y,
                     real* scratch) noexcept nogil:
    """One image, one block of planes, one band of rows, window by window."""
    cdef Plan p = shared[0]
    cdef Py_ssize_t lanes = lanes_of(sizeof(real)), blocks = dw_ceil_div(p.channels, lanes), row, window, out0, in0 = 0, r, rows
    cdef Py_ssize_t first = task // p.bands % blocks * lanes, n = task // (p.bands * blocks)
    cdef Py_ssize_t base = dw_min(first, p.channels - lanes)      # the last block recomputes some planes, but does not store them
    cdef Band band, part
    cdef const Axis* cols = &shared.cols
    cdef const real* planes[16]
    cdef real room[18 * 16]   # 4x4 taps, the bias, and what aligns them
    cdef real* packed = <real*> (<size_t> room + 63 & ~<size_t> 63)
    cdef int lane
    cdef bint last
    cdef real* out
    cdef real* to
    w, bias = w + base, bias + base if bias else bias
    if dw_takes_all(p.rows.taps, p.cols.taps, p.rows.step, p.cols.step):     # now: tiles would wait for what was just stored
        pack_weights(&p.geometry, w, bias, 0, 1, lanes, False, packed)
        w = packed
        p.geometry.packed = 1
    for lane in range(lanes):
        planes[lane] = x + n * p.xn + (base + lane) // p.repeat * p.xc
    y += n * p.yn + base * p.yc
    for window in range(p.windows):
        out0 = cols.out * window // p.windows
        if p.windows > 1:
            p.cols = columns_of(cols, out0, cols.out * (window + 1) // p.windows, &in0)
        band = band_of(&p, task % p.bands)
        rows = dw_min(p.chunk, dw_max(band.in1 - band.in0, 0))
        out, row = scratch + rows * p.cols.size * lanes, p.cols.out * lanes
        part = band
        while True:
            part.in1 = dw_min(part.in0 + p.chunk, band.in1)
            last = part.in1 == band.in1
            p.geometry.resume, p.geometry.clamp = part.in0 > band.in0, last and shared.geometry.clamp
            if p.windows == 1:
                gather_pixels(planes, part.in0 * cols.size, (part.in1 - part.in0) * cols.size, scratch, p.geometry.far)
            else:
                for r in range(part.in0, part.in1):     # the CPU follows the rows of so few columns by itself
                    gather_pixels(planes, r * cols.size + in0, p.cols.size, scratch + (r - part.in0) * p.cols.size * lanes, 0)
            part.q0, part.r0 = band.q0, band.r0
            while part.r0 < band.r1:
                part.q1 = dw_min(part.q0 + p.turns, band.q1)
                part.r1 = dw_min(part.q1 * p.rows.phases, band.r1)
                scratch_blocks(&p, &part, scratch, lanes, w, bias, out - part.r0 * row, row, lanes)
                to = y + part.r0 * cols.out + out0
                if last and p.windows == 1:
                    scatter_pixels(out, (part.r1 - part.r0) * cols.out, to, p.yc, first - base)
                elif last:
                    for r in range(part.r1 - part.r0):
                        scatter_pixels(out + r * row, p.cols.out, to + r * cols.out, p.yc, first - base)
                part.q0, part.r0 = part.q1, part.r1
            if last:
                break
            part.in0 = part.in1


cdef void run_planes(Plan* p, const real* x, const real* w, const real* bias, real* y, real* scratch, Py_ssize_t rows,
                     int workers) noexcept nogil:
    """rows: of a band at most, whole turns of the row phases."""
    cdef Py_ssize_t task, lanes = lanes_of(sizeof(real)), tasks = p.images * dw_ceil_div(p.channels, lanes)
    fill_geometry(p)
    p.geometry.sw = p.cols.step
    p.bands = dw_ceil_div(p.rows.out, rows)
    p.bands = even_shares(p.bands, dw_max(p.bands, dw_ceil_div(p.rows.out, p.rows.phases * TURNED_ROWS)), tasks, workers)
    tasks *= p.bands
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                plane_task(p, task, x, w, bias, y, scratch)
        else:
            # static: a worker finds the planes of the last call in its own cache (56x56x144 k5 s2, 2 workers: 75 us, dynamic 100)
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                plane_task(p, task, x, w, bias, y, scratch + threadid() * (SCRATCH_BYTES // <Py_ssize_t> sizeof(real)))
