# cython: language_level=3, embedsignature=True
"""The compiled loops: entry points, blocking and threads around the register tiles of _tiles.h.

    w (kh, kw, C*M) or (kh, kw, C, M), bias (C*M,) or None, and
    x (N, H, W, C), y (N, OH, OW, C*M)     channels_last
    x (N, C, H, W), y (N, C*M, OH, OW)     channels_first

The ladder: the entry point takes typed memoryviews and fills a Plan; run_channels of _channels.pxi, run_rows, run_staged and
run_planes of _scratch.pxi, and run_few of _few.pxi, cut the plan into tasks and each hold the only prange of their way; a task
walks its bands and channel blocks or planes (those of run_rows some through _parted.pxi); a tile (C) computes.
The gradients follow the same ladder in two included files, _input_grad.pxi and _kernel_grad.pxi.
Below the entry point there are pointers, Py_ssize_t and `noexcept nogil` only.

Refused here: argument checks (functional.py has made them; a debug build adds bounds checks on what the entries touch),
dtypes other than float32 and float64, inputs whose innermost axis has gaps, scratch beyond PATTERN_BYTES a call (the
repeated weights of an image with few channels) or SCRATCH_BYTES a worker (planes as channels, few channels as planes, parted
rows, some channels of pixels, packed weights).

This file is compiled once per instruction set, see setup.py.  Bits do not depend on how the work is cut: see _tiles.h.
"""
from cython.parallel cimport prange, threadid
from libc.stdlib cimport free


cdef extern from *:
    """
    /* Cython asks this at a prange of a nogil function.  Here the GIL is never held there, but before Python 3.12 the answer is
       always yes once a process has had a second interpreter, and releasing it twice is a fatal error. */
    #define PyGILState_Check() 0
    #define REAL float
    #define REAL_SIZE 4
    #define REAL_INT int32_t
    #define DW(name) name##_f32
    #include "_simd.h"
    #include "_tiles.h"
    #include "_input_grad_tiles.h"
    #include "_kernel_grad_tiles.h"
    #include "_peak.h"
    #undef REAL
    #undef REAL_SIZE
    #undef REAL_INT
    #undef DW
    #define REAL double
    #define REAL_SIZE 8
    #define REAL_INT int64_t
    #define DW(name) name##_f64
    #include "_simd.h"
    #include "_tiles.h"
    #include "_input_grad_tiles.h"
    #include "_kernel_grad_tiles.h"
    #include "_peak.h"
    #include "_platform.h"
    """
    const char* DW_COMPILER
    enum: DW_OPENMP, DW_VECTOR_BYTES, DW_ANY_ROWS, DW_ANY_COLS, DW_TAP_LANES, DW_TALL_ROWS
    void* aligned_alloc(size_t, size_t) nogil
    int dw_max_threads() nogil
    int dw_thread_num() nogil
    double dw_seconds() nogil
    Py_ssize_t dw_third_cache() nogil
    ctypedef struct PyThreadState
    PyThreadState* PyThreadState_Get() nogil
    PyThreadState* PyEval_SaveThread() nogil
    void PyEval_RestoreThread(PyThreadState*) nogil
    int PyErr_CheckSignals() nogil       # leaves the exception set, for the entry to pass on
    Py_ssize_t multiply_adds_f32(Py_ssize_t) nogil
    Py_ssize_t multiply_adds_f64(Py_ssize_t) nogil
    void dw_copies(unsigned char*, const unsigned char*, Py_ssize_t, Py_ssize_t) nogil
    Py_ssize_t dw_ceil_div(Py_ssize_t, Py_ssize_t) nogil
    Py_ssize_t dw_max(Py_ssize_t, Py_ssize_t) nogil
    Py_ssize_t dw_min(Py_ssize_t, Py_ssize_t) nogil
    ctypedef struct dw_geometry:
        Py_ssize_t kh, kw, sh, sw, xh, xw, wh, ww, yh, yw, x0, row_lo, row_hi, col_lo, col_hi
        Py_ssize_t cols, width, pad, repeat, period, parts, part, turn
        int stream, far, strips, compact, packed, alike, resume, clamp
        double lo, hi
    void channel_blocks_f32(const dw_geometry*, const float*, const float*, const float*, float*,
                            Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void channel_blocks_f64(const dw_geometry*, const double*, const double*, const double*, double*,
                            Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void pack_weights_f32(const dw_geometry*, const float*, const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, bint,
                          float*) nogil
    void pack_weights_f64(const dw_geometry*, const double*, const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, bint,
                          double*) nogil
    void row_block_f32(const dw_geometry*, const float*, const float*, const float*, float*,
                       Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void row_block_f64(const dw_geometry*, const double*, const double*, const double*, double*,
                       Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    void tall_plane_f32(const dw_geometry*, const float*, const float*, const float*, float*, Py_ssize_t, Py_ssize_t) nogil
    void tall_plane_f64(const dw_geometry*, const double*, const double*, const double*, double*, Py_ssize_t, Py_ssize_t) nogil
    void part_rows_f32(const dw_geometry*, const float*, Py_ssize_t, Py_ssize_t, Py_ssize_t, float*, Py_ssize_t) nogil
    void part_rows_f64(const dw_geometry*, const double*, Py_ssize_t, Py_ssize_t, Py_ssize_t, double*, Py_ssize_t) nogil
    bint parts_serve_f32(const dw_geometry*, Py_ssize_t, Py_ssize_t) nogil
    bint parts_serve_f64(const dw_geometry*, Py_ssize_t, Py_ssize_t) nogil
    bint dw_takes_all(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) nogil
    bint dw_wraps(Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, bint) nogil
    int shifted_serve_f32(const dw_geometry*) nogil
    int shifted_serve_f64(const dw_geometry*) nogil
    bint down_serves_f32(const dw_geometry*) nogil
    bint down_serves_f64(const dw_geometry*) nogil

ctypedef fused real:
    float
    double

cdef enum:
    PATTERN_BYTES = 32768     # repeated weights of one call; beyond, each is repeated where it is used
    FLAT_STRIDE = 4           # at most, of flat rows; beyond, few channels are taken as one partial vector
    FLAT_STRIDED = 4          # channels: more are faster that way at any stride (112x112, 3x3: 6 channels 1.3 times, 8 1.5)
    FEW_CHANNELS = 4          # of images that are split into planes, at stride 2 along the rows
    FEW_COLUMNS = 32          # ... in tiles of so many columns at least
    BAND_BYTES = 262144       # of input and output that a band of rows touches: a share of L2, where every channel block finds it
    SCRATCH_BYTES = 61440     # of a worker: planes taken as channels, parted rows, pixels that share sets of the cache
    WEIGHT_BYTES = 12800      # of that scratch, for the weights of what lies there: a 7x7 kernel with 256 bytes of channels
    TURNED_ROWS = 4           # of planes taken as channels at least, so that tiles have their full height
    WINDOW_TAPS = 16          # of kernels whose planes are cut into windows: with fewer, or at stride 1 without chunks, rows win
    CHUNK_TAPS = 30           # of kernels whose inputs are turned some rows at a time (AVX-512); tiles for fewer do not resume
    TURN_COST = 64            # multiply-adds in whose time a vector of pixels of each of its planes is turned
    RESUME_COST = 4           # ... an output waits in the scratch for more inputs
    STAGED_BYTES = 128        # of each of those pixels at a time, or half to four times as many: see staged_rows
    SPREAD_COLUMNS = 24       # of outputs at a time, at least, where a multiplier's vectors are written out
    FAR_BYTES = 6291456       # of x and y: beyond, what is used next is fetched while this is used, and see `far` in _tiles.h
    STREAM_BYTES = 17825792   # the same: beyond, they come from memory, which is fast along rows only; see stream_bytes
    WIDE_ROW = 64             # outputs of strided rows that are parted, not turned, where their vectors are nearly full
    LONG_ROW = 192            # numbers: planes with longer rows are run along them
    FEW_PAGES = 65536         # bytes of a plane from memory that shifted tiles take (16 x 56x56x72 1.5 times, 145x145 0.75)
    PHASE_BYTES = 32768       # of planes whose row phases are taken one after the other: a share of L2
    UNEVEN = 8                # parts of a worker from which on one more or less does not matter
    ROUND = 1 << 26           # multiply-adds of a worker between two looks at the signals: 1 ms here, at worst a third of 1 s


# With an L3 of 32 MB; of a smaller one the same share (8 MB: 112x112x96 at stride 2 1.5 times as fast, 8 x 28x28x256 1.25).
cdef Py_ssize_t stream_bytes = STREAM_BYTES // 32 * (dw_min(dw_third_cache() or 33554432, 33554432) >> 20)


cdef inline Py_ssize_t lanes_of(Py_ssize_t size) noexcept nogil:
    return DW_VECTOR_BYTES // size if DW_VECTOR_BYTES else 1


# ---- signals: Ctrl-C ends a long call ----

cdef struct Watch:
    double rounds             # of the call: its multiply-adds by ROUND for each of at most 8 workers (more may share CPUs)
    double last               # time of the last look
    PyThreadState* thread     # of the call
    bint stop                 # a handler has raised
    Py_ssize_t begin, end     # tasks of the round


cdef inline Watch make_watch(double work, int workers) noexcept nogil:
    """Needs the GIL."""
    cdef Watch watch
    watch.thread = PyThreadState_Get()
    watch.rounds = work / (<double> ROUND * dw_min(workers, 8))
    watch.last, watch.stop, watch.begin, watch.end = 0, False, 0, 0
    return watch


cdef bint stopped(Watch* watch) noexcept nogil:
    """Whether to end the call.  Its own thread looks, between rounds; where that is not Python's main one, it sees no signal.

    Not more often, since the look takes the GIL, for which other threads may let it wait 5 ms."""
    if dw_thread_num() == 0 and not watch.stop and dw_seconds() - watch.last > 0.05:
        # not `with gil`: PyGILState_Ensure is a crash in a daemon thread at the end of the interpreter
        PyEval_RestoreThread(watch.thread)
        watch.stop = PyErr_CheckSignals() != 0
        PyEval_SaveThread()
        watch.last = dw_seconds()
    return watch.stop


cdef inline bint next_round(Watch* watch, Py_ssize_t tasks, int workers) noexcept nogil:
    watch.begin = watch.end
    if watch.begin == tasks or watch.begin and stopped(watch):
        return False
    watch.end = tasks
    if watch.rounds > 1:
        watch.end = dw_min(watch.begin + dw_max(<Py_ssize_t> (tasks / watch.rounds) // workers, 1) * workers, tasks)
    return True


# ---- geometry ----

cdef struct Axis:
    Py_ssize_t size           # of the input
    Py_ssize_t out            # of the output
    Py_ssize_t taps, stride, dilation
    Py_ssize_t pad            # before the first input
    Py_ssize_t phases         # outputs f, f + phases, ... see the same taps: dilation / gcd(stride, dilation)
    Py_ssize_t step           # from one of those to the next, in taps: stride / gcd(stride, dilation)


cdef struct Phase:
    Py_ssize_t first          # input position of tap 0 of the phase's first output; negative in the padding
    Py_ssize_t out            # its outputs
    Py_ssize_t lo, hi         # taps from there that lie in the input: lo <= t < hi


cdef struct Parts:            # rows through the scratch as parts, see _parted.pxi: strips of outputs, with some taps at a time
    Py_ssize_t rows, cols     # of a strip: rows of a phase (0: rows are not parted), columns
    Py_ssize_t high, wide     # taps: rows, and columns, all of them where there is more than one row
    Py_ssize_t part, pitch    # numbers of a part of a row in the scratch; of a row


cdef struct Plan:
    Axis rows, cols
    Py_ssize_t images, channels, repeat        # channels: of the output; repeat: the multiplier
    Py_ssize_t xn, xc, xh, xw, yn, yc, yh, yw, wh, ww    # strides in elements
    Py_ssize_t unit           # row family: elements of x per column (channels of a flat row)
    Py_ssize_t groups, bands  # of channel blocks; of output rows
    Py_ssize_t staged         # through the scratch: bytes of a pixel at a time
    Py_ssize_t turns          # planes as channels: of output rows, one of each row phase, that are turned back at a time
    Py_ssize_t windows        # ... of output columns, into which a band is cut
    Py_ssize_t chunk          # ... of input rows of a band that are turned at a time
    Py_ssize_t items          # row family: planes x row phases x bands
    Py_ssize_t start, blocks  # the first channel of the first block, negative if it overlaps the second or is wrapped; how many
    bint dense                # channels_first: whether the rows of a plane follow each other without gaps, in x and y
    Watch watch
    Parts parts
    dw_geometry geometry      # what all tasks share


cdef inline Py_ssize_t gcd(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    while b:
        a, b = b, a % b
    return a


cdef inline Axis make_axis(tuple axis):
    """(size, out, taps, stride, dilation, pad) with its phases."""
    cdef Axis a
    a.size, a.out, a.taps, a.stride, a.dilation, a.pad = axis
    cdef Py_ssize_t g = gcd(a.dilation, a.stride)
    a.phases = dw_min(a.dilation // g, dw_max(a.out, 1))
    a.step = a.stride // g
    return a


cdef inline Py_ssize_t touched_bytes(const Axis* rows, const Axis* cols, Py_ssize_t images, Py_ssize_t channels,
                                     Py_ssize_t repeat, Py_ssize_t size) noexcept nogil:
    """Of inputs and outputs; channels, repeat: of a plan."""
    return size * images * channels * (rows.size * cols.size // repeat + rows.out * cols.out)


cdef inline Py_ssize_t reach(const Axis* a) noexcept nogil:
    """From one output that an input reaches to the next: dilation / gcd(stride, dilation)."""
    return a.dilation // (a.stride // a.step)


cdef inline Phase make_phase(const Axis* a, Py_ssize_t f) noexcept nogil:
    cdef Phase p
    p.first = f * a.stride - a.pad
    p.out = dw_ceil_div(a.out - f, a.phases)
    p.lo = dw_ceil_div(-p.first, a.dilation)
    p.hi = dw_ceil_div(a.size - p.first, a.dilation)
    return p


cdef inline void enter_rows(Plan* p, Py_ssize_t f, Py_ssize_t* out) noexcept nogil:
    """Row phase f into the plan's geometry."""
    cdef Phase rows = make_phase(&p.rows, f)
    p.geometry.row_lo, p.geometry.row_hi = rows.lo, rows.hi
    p.geometry.x0 = rows.first * p.xh - p.geometry.pad
    out[0] = rows.out


cdef inline void fill_geometry(Plan* p) noexcept nogil:
    """What does not depend on the phase."""
    cdef dw_geometry* g = &p.geometry
    g.kh, g.kw, g.sh = p.rows.taps, p.cols.taps, p.rows.step
    g.xh = p.rows.dilation * p.xh
    g.yh = p.rows.phases * p.yh
    g.wh, g.ww = p.wh, p.ww


cdef inline Py_ssize_t even_shares(Py_ssize_t count, Py_ssize_t most, Py_ssize_t others, int workers) noexcept nogil:
    """At least `count` parts of each of `others`, as many as give the workers equal shares, but at most `most`.

    No more: the schedule is static, so that a worker finds in its cache what it had the last time, and small parts waste rows."""
    cdef Py_ssize_t share = workers // gcd(workers, others)
    if others < workers * UNEVEN:
        count = dw_min(dw_ceil_div(dw_max(count, 1), share) * share, most)
    return dw_max(count, 1)


cdef inline Py_ssize_t for_rounds(const Plan* p, Py_ssize_t count, Py_ssize_t most, Py_ssize_t others,
                                  int workers) noexcept nogil:
    """`count` parts of each of `others`, or as many more as the rounds of a long call want."""
    return dw_max(count, dw_min(<Py_ssize_t> (p.watch.rounds * workers / dw_max(others, 1)), most))


cdef inline Py_ssize_t band_count(const Plan* p, Py_ssize_t row_bytes, Py_ssize_t others, int workers) noexcept nogil:
    """Into how many bands the rows of each of `others` are cut: what fits the cache and suits the workers."""
    cdef Py_ssize_t rows = dw_ceil_div(p.rows.out, p.rows.phases)
    cdef Py_ssize_t count = dw_ceil_div(rows * dw_min(row_bytes, BAND_BYTES), BAND_BYTES)
    return for_rounds(p, even_shares(dw_min(count, rows // 4), rows // 2, others, workers), rows, others, workers)


cdef inline Py_ssize_t band_row(Py_ssize_t rows, Py_ssize_t band, Py_ssize_t bands) noexcept nogil:
    """The first row of a band of channels: where tiles of two rows end, if all are so high (AVX-512, 28x28x240: 1.05)."""
    return dw_min(dw_ceil_div(rows * band // bands, DW_ANY_ROWS) * DW_ANY_ROWS, rows)


cdef inline bint share_channels(const Plan* p, Py_ssize_t parts, int workers) noexcept nogil:
    """Whether workers had better share the channels of one image than its rows: bands of so few rows need mostly the same of
    x, and all weights each (2 workers: 14x14x672 5x5 1.43 times as fast, 7x7x768 7x7 1.3, 14x14x480 5x5 1.07; of 28 rows with
    7x7 0.86).  Tiles that take all channels in turn lose by it (3x3 0.5).  parts: of the channels, at most."""
    return (1 < workers <= parts and p.images == 1 and p.rows.phases == 1 and (p.rows.taps == 5 or p.rows.taps == 7)
            and p.cols.taps == p.rows.taps and p.rows.out <= 3 * p.rows.taps)


include "_channels.pxi"


# ---- channels_first: vectors along the row ----

include "_parted.pxi"


cdef void row_task(const Plan* shared, Py_ssize_t task, Py_ssize_t tasks, const real* x, const real* w, const real* bias,
                   real* y, real* scratch) noexcept nogil:
    """A range of the items (plane, row phase, band of rows), bands fastest: a worker keeps its planes to itself.

    Whole planes, of one band: some at a time, phase by phase."""
    cdef Plan p = shared[0]
    cdef Py_ssize_t item = p.items * task // tasks, end = p.items * (task + 1) // tasks, parts = p.bands * p.rows.phases
    cdef Py_ssize_t n = item // parts // p.channels, c = item // parts % p.channels, part = item % parts, phase, phases, band
    cdef Py_ssize_t rows = p.rows.out, r0, r1, planes, k
    cdef const real* x_plane = NULL
    cdef const real* own = NULL
    cdef real* y_plane = NULL
    while item < end:
        planes, phases = 1, 1
        if p.bands == 1 and part == 0 and end - item >= parts and p.repeat == 1:     # whole planes: masks are made once for all
            planes, phases = dw_min((end - item) // parts, p.channels - c), parts
            if phases > 1:
                planes = dw_max(dw_min(planes, PHASE_BYTES // (p.rows.size * p.geometry.width * sizeof(real))), 1)
        x_plane = x + n * p.xn + (c // p.repeat if p.repeat > 1 else c) * p.xc
        for phase in range(part // p.bands, part // p.bands + phases):
            enter_rows(&p, phase, &rows)
            band = part % p.bands
            r0, r1 = rows * band // p.bands, rows * (band + 1) // p.bands
            y_plane, own = y + n * p.yn + c * p.yc + phase * p.yh, bias + c if bias else bias
            if p.parts.rows and (parts_serve_f32(&p.geometry, r1 - r0, planes) if real is float
                                 else parts_serve_f64(&p.geometry, r1 - r0, planes)):
                for k in range(planes):
                    parted_band(&p, x_plane + k * p.xc, w + c + k, own + k if own else own, y_plane + k * p.yc, r0, r1, scratch)
            elif real is float:
                row_block_f32(&p.geometry, x_plane, w + c, own, y_plane, r0, r1, planes, p.xc, p.yc)
            else:
                row_block_f64(&p.geometry, x_plane, w + c, own, y_plane, r0, r1, planes, p.xc, p.yc)
        item += planes * phases
        part += phases
        if part == parts:
            part = 0
            c += planes
            if c == p.channels:
                n, c = n + 1, 0


cdef inline Py_ssize_t tasks_of_items(const Plan* p, int workers) noexcept nogil:
    """A worker's items are one task, or one a round of a long call."""
    return dw_min(p.items, workers * (1 + <Py_ssize_t> p.watch.rounds))


cdef inline void fill_rows(Plan* p, Py_ssize_t size) noexcept nogil:
    cdef dw_geometry* g = &p.geometry
    fill_geometry(p)
    g.xw = p.cols.dilation * p.unit
    g.sw = p.cols.stride
    g.pad = p.cols.pad * p.unit
    g.width = p.cols.size * p.unit
    g.strips = 0
    if g.stream or g.width >= LONG_ROW:
        g.strips = 2 if g.width >= LONG_ROW or p.rows.size * g.width * size > FEW_PAGES else 1


cdef void run_rows(Plan* p, const real* x, const real* w, const real* bias, real* y, real* scratch, Py_ssize_t room,
                   int workers) noexcept nogil:
    """scratch: `room` numbers for each worker, where rows are parted."""
    cdef Py_ssize_t task, tasks
    cdef dw_geometry* g = &p.geometry
    p.bands = band_count(p, sizeof(real) * (p.rows.stride * g.width + g.cols), p.images * p.channels * p.rows.phases, workers)
    p.items = p.images * p.channels * p.rows.phases * p.bands
    p.parts.rows = 0
    if room:
        set_parts(p, room, sizeof(real))
    tasks = tasks_of_items(p, workers)
    while next_round(&p.watch, tasks, workers):
        if workers <= 1:
            for task in range(p.watch.begin, p.watch.end):
                row_task(p, task, tasks, x, w, bias, y, scratch)
        else:
            for task in prange(p.watch.begin, p.watch.end, schedule="static", num_threads=workers):
                row_task(p, task, tasks, x, w, bias, y, scratch + threadid() * room)


include "_scratch.pxi"
include "_few.pxi"


# ---- channels_last with few channels: flat rows of one plane, whose weights repeat with the pixel ----

cdef void run_flat(Plan* p, const real* x, const real* w, const real* bias, real* y, real* pattern, Py_ssize_t numbers,
                   Py_ssize_t room, int workers) noexcept nogil:
    """pattern: (taps + 1) * (channels + lanes - 1) of its `numbers` are scratch for the repeated bias and weights (0: none); then
    `room` for each worker, where rows are parted."""
    cdef Py_ssize_t lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t pitch = p.channels + lanes - 1, i, j, k, c = p.channels
    cdef real* tap = pattern
    p.geometry.period, p.geometry.cols = c, p.cols.out * c
    p.unit, p.geometry.repeat, p.geometry.compact = c // p.repeat, p.repeat, not pattern
    p.channels = 1
    if pattern:
        for k in range(pitch):
            tap[k] = 0 if not bias else bias[k] if k < c else tap[k - c]
        tap += pitch
        for i in range(p.rows.taps):
            for j in range(p.cols.taps):
                for k in range(pitch):
                    tap[k] = w[i * p.wh + j * p.ww + k] if k < c else tap[k - c]
                tap += pitch
        p.wh, p.ww = p.cols.taps * pitch, pitch
        w, bias = pattern + pitch, pattern
    fill_rows(p, sizeof(real))
    run_rows(p, x, w, bias, y, pattern + numbers if room else NULL, room, workers)


# ---- entry point ----

cdef inline Py_ssize_t elements(Py_ssize_t stride, Py_ssize_t size, Py_ssize_t itemsize) noexcept nogil:
    """A stride in elements; NumPy lets that of an axis of one element be anything."""
    return stride // itemsize if size > 1 else 0


cdef struct Extent:
    Py_ssize_t lo, hi          # addresses of the first byte and after the last


cdef inline Extent extent(Py_ssize_t start, const Py_ssize_t* shape, const Py_ssize_t* strides, int axes,
                          Py_ssize_t size) noexcept nogil:
    cdef Extent e
    cdef int k
    e.lo, e.hi = start, start + size
    for k in range(axes):
        if strides[k] < 0:
            e.lo += strides[k] * (shape[k] - 1)
        else:
            e.hi += strides[k] * (shape[k] - 1)
    return e


cdef inline bint meet(Extent a, Extent b) noexcept nogil:
    return a.lo < b.hi and b.lo < a.hi


cdef bint _forward(bint last, const real[:, :, :, :] x, const real[:, :, :, :] w, const real[::1] bias, real[:, :, :, :] y,
                   tuple rows, tuple cols, tuple clamp, int workers) except -1:
    cdef Plan p
    cdef Extent e = extent(<Py_ssize_t> &y[0, 0, 0, 0], y.shape, y.strides, 4, sizeof(real))
    cdef Py_ssize_t size = sizeof(real), lanes = lanes_of(sizeof(real))
    cdef Py_ssize_t h = 1 if last else 2, c = 3 if last else 1    # axes of the rows (columns follow) and channels
    cdef Py_ssize_t channels = w.shape[2] * w.shape[3], numbers = (w.shape[0] * w.shape[1] + 1) * (channels + lanes - 1)
    cdef const real* b = &bias[0] if bias is not None else NULL
    cdef real* scratch = NULL
    cdef bint flat, few, parted = False
    cdef Tiling t
    cdef Py_ssize_t band = 0, touched, room = 0, share = 0
    if (meet(e, extent(<Py_ssize_t> &x[0, 0, 0, 0], x.shape, x.strides, 4, size))
            or meet(e, extent(<Py_ssize_t> &w[0, 0, 0, 0], w.shape, w.strides, 4, size))
            or b and meet(e, extent(<Py_ssize_t> b, bias.shape, bias.strides, 1, size))):
        return False
    p.rows, p.cols = make_axis(rows), make_axis(cols)
    p.images, p.channels, p.repeat, p.unit = x.shape[0], channels, channels // x.shape[c], 1
    p.xn, p.xc = elements(x.strides[0], x.shape[0], size), elements(x.strides[c], x.shape[c], size)
    p.xh, p.xw = elements(x.strides[h], x.shape[h], size), elements(x.strides[h + 1], x.shape[h + 1], size)
    p.yn, p.yc = elements(y.strides[0], y.shape[0], size), elements(y.strides[c], y.shape[c], size)
    p.yh, p.yw = elements(y.strides[h], y.shape[h], size), elements(y.strides[h + 1], y.shape[h + 1], size)
    p.wh, p.ww = w.strides[0] // size, w.strides[1] // size
    if last and channels == 1 and (p.xw == 1 or p.cols.size == 1) and (p.yw == 1 or p.cols.out == 1):
        last = False          # the same numbers in the same order: one plane
    p.watch = make_watch(<double> p.images * p.channels * p.rows.out * p.cols.out * p.rows.taps * p.cols.taps, workers)
    touched = touched_bytes(&p.rows, &p.cols, p.images, p.channels, p.repeat, size)
    p.geometry.far, p.geometry.stream = dw_min(touched // FAR_BYTES, 2), touched > stream_bytes
    p.geometry.clamp = len(clamp) == 2
    p.geometry.lo, p.geometry.hi = clamp if clamp else (0.0, 0.0)
    p.geometry.pad, p.geometry.period, p.geometry.repeat, p.geometry.cols = 0, 1, 1, p.cols.out
    p.geometry.compact, p.geometry.packed, p.geometry.alike, p.geometry.resume, p.geometry.parts = 0, 0, 0, 0, 0
    few = last and few_serve(&p, size, workers, &t)
    # how full a vector of one pixel's channels would be; flat rows with a stride or multiplier are parted first
    flat = (last and not few
            and p.channels <= ((lanes - 1 if p.repeat == 1 or DW_VECTOR_BYTES == 32 else lanes // 2) if p.cols.stride == 1
                               else dw_min(lanes // 2 - 1, FLAT_STRIDED))
            and (p.cols.stride == 1 or p.cols.stride <= FLAT_STRIDE and p.rows.taps > p.rows.stride and DW_VECTOR_BYTES >= 32)
            and (numbers * size <= PATTERN_BYTES or p.repeat == 1 and p.cols.stride == 1 and DW_VECTOR_BYTES > 16)
            and (p.xw == x.shape[c] or p.cols.size == 1) and (p.yw == p.channels or p.cols.out == 1))
    if last and not few and not flat:
        band = staged_rows(&p, size)
    if not last:
        p.dense = (p.xh == p.cols.size or p.rows.size == 1) and (p.yh == p.cols.out or p.rows.out == 1)
        fill_rows(&p, size)
        if not row_tiles_win(&p, shifted_serve_f32(&p.geometry) if real is float else shifted_serve_f64(&p.geometry),
                             down_serves_f32(&p.geometry) if real is float else down_serves_f64(&p.geometry), lanes):
            band = plane_rows(&p, size)
        parted = not band and (parts_serve_f32(&p.geometry, 0, 0) if real is float else parts_serve_f64(&p.geometry, 0, 0))
    if flat:
        parted = p.repeat * p.cols.stride > 1
        numbers = (numbers + 15) // 16 * 16 if numbers * size <= PATTERN_BYTES else 0
        room = numbers * size
    if band or few:
        room = workers * SCRATCH_BYTES
    elif parted:
        share = (SCRATCH_BYTES - room) // size // 16 * 16
        room += workers * share * size
    elif last and not flat:
        room = workers * packed_bytes(&p, size)
    if room:
        scratch = <real*> aligned_alloc(64, (room + 63) // 64 * 64)
        if not scratch:
            raise MemoryError
    with nogil:
        if band and last:
            run_staged(&p, &x[0, 0, 0, 0], &w[0, 0, 0, 0], b, &y[0, 0, 0, 0], scratch, band, workers)
        elif band:
            run_planes(&p, &x[0, 0, 0, 0], &w[0, 0, 0, 0], b, &y[0, 0, 0, 0], scratch, band, workers)
        elif few:
            run_few(&p, t, &x[0, 0, 0, 0], &w[0, 0, 0, 0], b, &y[0, 0, 0, 0], scratch, workers)
        elif flat:
            run_flat(&p, &x[0, 0, 0, 0], &w[0, 0, 0, 0], b, &y[0, 0, 0, 0], scratch, numbers, share, workers)
        elif last:
            run_channels(&p, &x[0, 0, 0, 0], &w[0, 0, 0, 0], b, &y[0, 0, 0, 0], scratch, workers)
        else:
            run_rows(&p, &x[0, 0, 0, 0], &w[0, 0, 0, 0], b, &y[0, 0, 0, 0], scratch, share, workers)
        free(scratch)
    return -1 if p.watch.stop else True


def forward(str data_format, x, w, bias, y, tuple rows, tuple cols, tuple clamp, int workers):
    """Writes the convolution of x with w to y, and says so; False, and nothing done, if y may share memory with an input.

    x, w, bias, y: arrays as above, all float32 or all float64, the innermost axis of each without gaps.
    rows, cols: axes (size, out, taps, stride, dilation, pad), see _geometry.py.  clamp: () or (lo, hi).
    """
    cdef bint last = data_format == "channels_last"
    if w.ndim == 3:
        w = w[..., None]
    if y.itemsize == sizeof(float):
        return _forward[float](last, x, w, bias, y, rows, cols, clamp, workers)
    return _forward[double](last, x, w, bias, y, rows, cols, clamp, workers)


def max_threads():
    """OpenMP's own number of threads for the calling thread, 1 without OpenMP; never cached, so threadpoolctl works."""
    return dw_max_threads()


def build_info():
    """What this module was compiled with."""
    return {"compiler": DW_COMPILER.decode(), "openmp": bool(DW_OPENMP), "vector_bytes": DW_VECTOR_BYTES}


def multiply_adds(bint double_precision, Py_ssize_t steps, int workers):
    """Multiplies and adds in registers, `steps` steps on each worker, and returns how often; for _bench.py, which times it."""
    cdef Py_ssize_t worker, count = 0
    for worker in prange(workers, nogil=True, schedule="static", chunksize=1, num_threads=workers):
        count += multiply_adds_f64(steps) if double_precision else multiply_adds_f32(steps)
    return count


def copies(const unsigned char[::1] source, unsigned char[::1] target, Py_ssize_t repeats, int workers):
    """Copies source to target `repeats` times, each worker a part of its own; for _bench.py, which times it."""
    cdef Py_ssize_t worker, size = dw_min(source.shape[0], target.shape[0])
    cdef const unsigned char* s = &source[0]
    cdef unsigned char* t = &target[0]
    for worker in prange(workers, nogil=True, schedule="static", chunksize=1, num_threads=workers):
        dw_copies(t + size * worker // workers, s + size * worker // workers,
                  size * (worker + 1) // workers - size * worker // workers, repeats)


include "_input_grad.pxi"
include "_kernel_grad.pxi"
