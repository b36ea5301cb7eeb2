# cython: language_level=3
"""Rows with a stride that has no tile, or with a depth multiplier, through a scratch: copied there once as rows without.

    x, y: a plane, or an image of few channels whose rows are flat runs of W*C numbers

Part of _kernels.pyx.  A band of row_task is taken in strips: some rows of outputs, of a window of columns, as wide as the scratch
allows.  What a strip needs of x is copied as parted rows (part_rows of _tiles.h), over which tall tiles run.  Of kernels for
which the scratch is too small, some taps are taken at a time, in their order, and the sums wait in y.

Refused here: argument checks, scratch beyond what the entry point gave.
"""


cdef inline Py_ssize_t part_numbers(const Plan* p, Py_ssize_t cols) noexcept nogil:
    """Of a part of a row with so many columns of outputs and p.parts.wide columns of taps: whole lines."""
    return ((cols + (p.parts.wide - 1) // p.cols.step * reach(&p.cols)) * p.geometry.period + 15) // 16 * 16


cdef inline Py_ssize_t row_numbers(const Plan* p, Py_ssize_t cols) noexcept nogil:
    """From a row in the scratch to the next: an odd number of lines, so that rows do not share sets of the cache."""
    return (dw_min(p.cols.step, p.parts.wide) * part_numbers(p, cols) // 16 | 1) * 16


cdef inline Py_ssize_t strip_numbers(const Plan* p, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil:
    """Of the scratch, for a strip of so many outputs."""
    return ((rows - 1) * p.rows.step + p.parts.high) * row_numbers(p, cols)


cdef inline void set_parts(Plan* p, Py_ssize_t room, Py_ssize_t size) noexcept nogil:
    """Strips, and taps at a time, that fit `room` numbers: a tile of rows and all taps, if some vectors of each row do."""
    cdef Parts* s = &p.parts
    cdef Py_ssize_t rows = dw_ceil_div(p.rows.out, p.rows.phases), cols = p.cols.out, k
    s.rows, s.cols = dw_min(rows, DW_TALL_ROWS), dw_min(cols, dw_ceil_div(4 * lanes_of(size), p.geometry.period))
    s.wide = dw_min(p.cols.taps, DW_TAP_LANES)
    s.high = p.rows.taps if s.wide == p.cols.taps else 1
    while strip_numbers(p, s.rows, s.cols) > room:
        if s.rows > 1 and s.high <= p.rows.step:      # rows of outputs that share no inputs
            s.rows -= 1
        elif s.high > 1:
            s.high = (s.high + 1) // 2
        else:
            s.wide = (s.wide + 1) // 2
    k = 1                     # windows: as few as fit, and then rows
    while strip_numbers(p, s.rows, dw_ceil_div(cols, k)) > room and dw_ceil_div(cols, k) > s.cols:
        k += 1
    s.cols = dw_max(dw_ceil_div(cols, k), s.cols)
    while s.cols == cols and s.rows < rows and strip_numbers(p, dw_min(s.rows + DW_TALL_ROWS, rows), cols) <= room:
        s.rows = dw_min(s.rows + DW_TALL_ROWS, rows)
    s.part, s.pitch = part_numbers(p, s.cols), row_numbers(p, s.cols)


cdef void parted_strip(const Plan* shared, const real* x, const real* w, const real* bias, real* y, Py_ssize_t row,
                       Py_ssize_t rows, Py_ssize_t col, Py_ssize_t i, Py_ssize_t j, real* scratch) noexcept nogil:
    """Rows from `row` on of a row phase, columns from `col` on, with the taps from (i, j) on."""
    cdef const Parts* s = &shared.parts
    cdef const Axis* cols = &shared.cols
    cdef dw_geometry g = shared.geometry
    cdef Py_ssize_t t0 = row * g.sh + i, end, ahead = s.rows * g.sh * g.xh if g.far > 1 else 0
    g.kh, g.kw = dw_min(shared.rows.taps - i, s.high), dw_min(cols.taps - j, s.wide)
    g.row_lo, g.row_hi = g.row_lo - t0, g.row_hi - t0
    g.resume, g.clamp = i + j > 0, g.clamp and i + g.kh == shared.rows.taps and j + g.kw == cols.taps
    g.x0, g.xh, g.xw, g.sw, g.width = 0, s.pitch, cols.dilation, cols.stride, cols.size
    g.pad, g.cols = cols.pad - j * cols.dilation - col * cols.stride, dw_min(cols.out - col, s.cols) * g.period
    g.parts, g.part, g.turn = dw_min(cols.step, g.kw), s.part, reach(cols) * g.period
    end = dw_min(g.row_hi, (rows - 1) * g.sh + g.kh)
    x += shared.geometry.x0 + shared.geometry.pad + t0 * shared.geometry.xh
    w += i * g.wh + j * g.ww
    y += row * g.yh + col * g.period
    if real is float:
        part_rows_f32(&g, x, shared.geometry.xh, dw_max(g.row_lo, 0), end, scratch, ahead)
        tall_plane_f32(&g, scratch, w, bias, y, 0, rows)
    else:
        part_rows_f64(&g, x, shared.geometry.xh, dw_max(g.row_lo, 0), end, scratch, ahead)
        tall_plane_f64(&g, scratch, w, bias, y, 0, rows)


cdef void parted_band(const Plan* p, const real* x, const real* w, const real* bias, real* y, Py_ssize_t r0, Py_ssize_t r1,
                      real* scratch) noexcept nogil:
    """Rows r0 to r1 of a row phase of a plane or of an image whose rows are flat, strip by strip."""
    cdef const Parts* s = &p.parts
    cdef Py_ssize_t window, row, i, j
    for window in range(dw_ceil_div(p.cols.out, s.cols)):
        row = r0
        while row < r1:
            for i in range(dw_ceil_div(p.rows.taps, s.high)):
                for j in range(dw_ceil_div(p.cols.taps, s.wide)):
                    parted_strip(p, x, w, bias, y, row, dw_min(r1 - row, s.rows), window * s.cols, i * s.high, j * s.wide,
                                 scratch)
            row += s.rows
