/* Tiles of planes: rows of numbers, a kernel of literal size, vectors along the row.
 *
 *   x (rows, width), y (rows, cols): a NCHW plane, or a NHWC image with few channels whose rows are flat runs of W*C numbers
 *
 * A part of the template _tiles.h, and bound by what it promises: one chain of multiply-adds per output, to which padding adds nothing.
 * Three ways through the rows, K x K taps, stride S, T vectors of outputs wide:
 *
 *   shifted  down the rows with K/S rows of outputs in registers: each input is loaded once, and shifted from its neighbours for the
 *            taps (rows of 56: 1.4 times as fast as loading those, which cross cache lines).  Many planes a call.  Loads per
 *            multiply-add: (S*T + 1) / (K*K*T/S), of 2x2 at stride 2 one less above, and the weights of kernels wider than 3.  3x3 also
 *            dilated, and two planes in a vector where half of it holds a row (7x7: 1.4 times as fast as planes as channels): those,
 *            but for stride 2, and 7x7 kernels at stride 1 load each tap column.  Half vectors, which end rows, do so too (at stride 2
 *            each two of them).  With AVX2 2x2 and 3x3 only, and loads for all, of 3x3 (3*T + 9) / (9*T) at stride 1, (8*T + 9) / (9*T)
 *            at stride 2; 7.6 and 14 cycles a vector from L1.
 *   slide    the same with loads for the taps, stride 1: other dilation, more padding, CPUs without cheap shifts.  Loads per
 *            multiply-add: (K unaligned loads of T vectors + K*K weights, of which each serves T) / (K*K*T).
 *   strip    DW_PLANE_ROWS rows of outputs at once (the last overlaps its neighbour), and along the row: for rows so long, or images so
 *            large, that going down a column touches a page per row; and where rows lie a power of two apart, so that sliding would
 *            load what looks to the CPU like an address just stored to (equal last 12 bits).  Flat rows: four strips down a column,
 *            for which the weights of its place in the period are laid side by side.
 *
 * Stride 2 is split into even and odd inputs once per row.  Refused here: other kernels (row tiles of _tiles.h), other strides and
 * multipliers within a row (parted rows there).
 */

/* Lanes of T vectors of a row of outputs: which inputs exist among those loaded (stride 2), and per tap column and vector the
 * outputs that it reaches. */
typedef struct {
    MASK in[2 * DW_PLANE_VECTORS + 1], out[7 * DW_PLANE_VECTORS];
} DW(dw_plane_lanes);

/* Vectors lie `apart` elements from each other: LANES, or so many that their weights are the same (flat rows). */
DW_INLINE void DW(plane_lanes)(const dw_geometry *g, DW(dw_plane_lanes) *m, ptrdiff_t c, ptrdiff_t apart, const int K, const int S,
                               const int T) {
    const ptrdiff_t e = c * S - g->pad;
    if (S == 2) DW_UNROLL for (int k = 0; k <= S * T; k++) m->in[k] = DW(lanes)(-e - k * LANES, g->width - e - k * LANES);
    DW_UNROLL for (int j = 0; j < K; j++) {
        const ptrdiff_t before = g->pad - j * g->xw, after = g->width + before; /* of outputs whose input is in the row, times S */
        const ptrdiff_t lo = S == 1 ? before : (before + 1) >> 1, hi = dw_min(S == 1 ? after : (after + 1) >> 1, g->cols);
        DW_UNROLL for (int k = 0; k < T; k++) m->out[j * T + k] = DW(lanes)(lo - c - k * apart, hi - c - k * apart);
    }
}

/* T vectors of inputs of one input row for tap column j, p those of that column and then of the next.  Loaded just before they are used,
 * since gcc spills some of a whole row's; with stride 2 all are made for column 0. */
DW_INLINE const VEC *DW(plane_inputs)(const REAL **p, VEC *v, const DW(dw_plane_lanes) *m, ptrdiff_t xw, ptrdiff_t apart, const int j,
                                      const int K, const int S, const int T, const int checked) {
    if (S == 1) {
        DW_UNROLL for (int k = 0; k < T; k++) v[k] = checked ? DW(load_lanes)(*p + k * apart, m->out[j * T + k]) : DW(load)(*p + k * apart);
        *p += xw;
        DW_HIDE(*p);
        return v;
    }
#if DW_SHIFTS /* others: parted rows, see part_rows of _tiles.h */
    if (j == 0) {
        VEC even[DW_PLANE_VECTORS + 1], odd[DW_PLANE_VECTORS + 1];
        DW_UNROLL for (int k = 0; k <= T; k++) { /* the last: a vector's first half is enough, of 3 taps its first number */
            const REAL *at = *p + 2 * k * LANES;
            const VEC a = k == T && K == 3 && !checked ? DW(splat)(*at) : checked ? DW(load_lanes)(at, m->in[2 * k]) : DW(load)(at);
            const VEC b = k == T ? a : checked ? DW(load_lanes)(at + LANES, m->in[2 * k + 1]) : DW(load)(at + LANES);
            even[k] = DW(even)(a, b);
            odd[k] = DW(odd)(a, b);
        }
        DW_UNROLL for (int i = 0; i < K; i++)
            DW_UNROLL for (int k = 0; k < T; k++)
                v[i * T + k] = i % 2 ? DW(shift)(odd[k], odd[k + 1], i / 2) : DW(shift)(even[k], even[k + 1], i / 2);
    }
#endif
    return v + j * T;
}

/* The T vectors v times the weights of tap (i, j), into acc. */
DW_INLINE void DW(plane_taps)(VEC *acc, const VEC *v, const REAL *w, const VEC *vectors, const DW(dw_plane_lanes) *m, const int i, const int j,
                              const int K, const int T, const int pattern, const int checked) {
    VEC wv = pattern ? vectors[i * K + j] : K == 3 ? DW(splat)(w[i * K + j]) : DW(load_splat)(w + i * K + j); /* 3x3: kept in registers */
    if (pattern && K > 3) DW_HOLD(wv);
    DW_UNROLL for (int k = 0; k < T; k++)
        if (checked) acc[k] = DW(add_product)(acc[k], v[k], wv, m->out[j * T + k]);
        else acc[k] = acc[k] + v[k] * wv;
}

DW_INLINE void DW(plane_store)(const dw_geometry *g, REAL *y, VEC *acc, ptrdiff_t left, ptrdiff_t apart, const int T, const int checked) {
    DW(clamp_all)(g, acc, T);
    DW_UNROLL for (int k = 0; k < T; k++) {
        if (checked && left < k * apart + LANES) DW(store_first)(y + k * apart, acc[k], left - k * apart);
        else DW(store)(y + k * apart, acc[k]);
    }
}

/* x, y: row 0 (tap row 0 of output row 0), the tile's first column; `left` outputs from there on in the row. */
#define DW_PLANE_ARGUMENTS                                                                                                  \
    const dw_geometry *g, const REAL *x, const REAL *w, VEC bias, REAL *y, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t left,      \
        ptrdiff_t apart, const DW(dw_plane_lanes) *m, const int K, const int S

DW_INLINE void DW(plane_slide)(DW_PLANE_ARGUMENTS, const int T, const int checked) {
    VEC acc[5 * DW_PLANE_VECTORS];
    DW_UNROLL for (int k = 0; k < K * T; k++) acc[k] = bias;
    const ptrdiff_t xh = g->xh, yh = g->yh, xw = g->xw, t0 = g->row_lo, t1 = dw_min(g->row_hi, r1 - 1 + K);
    x += r0 * xh;
    y += (r0 - K + 1) * yh;
    for (ptrdiff_t t = r0;;) {
/* Output row t starts in acc[phase], row t - a is in acc[phase - a]; written out, since the accumulators' indices must be literals (to
 * move them down after each row takes 1.05 to 1.1 times as long). */
#define PHASE(phase)                                                                                        \
        if (phase < K) {                                                                                    \
            if (t0 <= t && t < t1) {                                                                        \
                VEC v[DW_PLANE_VECTORS];                                                                    \
                const REAL *p = x;                                                                          \
                DW_UNROLL for (int j = 0; j < K; j++) {                                                     \
                    const VEC *in = DW(plane_inputs)(&p, v, m, xw, apart, j, K, S, T, checked);             \
                    DW_UNROLL for (int a = 0; a < K; a++)                                                   \
                        DW(plane_taps)(acc + (phase - a + K) % K * T, in, w, NULL, m, a, j, K, T, 0, checked); \
                }                                                                                           \
            }                                                                                               \
            if (t >= r0 + K - 1) DW(plane_store)(g, y, acc + (phase + 1) % K * T, left, apart, T, checked); \
            DW_UNROLL for (int k = 0; k < T; k++) acc[(phase + 1) % K * T + k] = bias;                      \
            x += xh;                                                                                        \
            y += yh;                                                                                        \
            if (++t >= r1 + K - 1) return;                                                                  \
        }
        PHASE(0) PHASE(1) PHASE(2) PHASE(3) PHASE(4)
#undef PHASE
    }
}

/* R rows from r0 on; wv: the weights, if they are vectors (pattern). */
DW_INLINE void DW(plane_strip)(DW_PLANE_ARGUMENTS, const VEC *wv, const int R, const int T, const int pattern, const int checked) {
    (void)r1;
    VEC acc[DW_PLANE_ROWS * DW_PLANE_VECTORS], own[25];
    const int held = pattern && K == 5 && T == 1; /* one vector, beside which 32 registers hold them all: loaded once (32x32x3: 1.1 times) */
    const ptrdiff_t t0 = g->row_lo - r0 * S, t1 = g->row_hi - r0 * S, xh = g->xh, xw = g->xw;
    x += r0 * S * xh;
    y += r0 * g->yh;
    DW_UNROLL for (int k = 0; k < R * T; k++) acc[k] = bias;
    DW_UNROLL for (int t = 0; t < (R - 1) * S + K; t++) {
        if (held && t < K) DW_UNROLL for (int j = 0; j < K; j++) {
            own[t * K + j] = wv[t * K + j];
            DW_HOLD(own[t * K + j]);
        }
        if (t0 <= t && t < t1) {
            VEC v[7 * DW_PLANE_VECTORS];
            const REAL *p = x;
            if (pattern) DW_HIDE(p);
            DW_UNROLL for (int j = 0; j < K; j++) {
                const VEC *in = DW(plane_inputs)(&p, v, m, xw, apart, j, K, S, T, checked);
                DW_UNROLL for (int r = 0; r < R; r++)
                    if (0 <= t - r * S && t - r * S < K)
                        DW(plane_taps)(acc + r * T, in, w, held ? own : wv, m, t - r * S, j, K, T, pattern, checked);
            }
        }
        x += xh;
    }
    DW_UNROLL for (int r = 0; r < R; r++) DW(plane_store)(g, y + r * g->yh, acc + r * T, left, apart, T, checked);
}

/* Output rows r0..r1 of T vectors of columns from c on; edge: which ends the row, and needs no code for its inside.  laid: their weights as
 * vectors, or NULL. */
DW_INLINE void DW(plane_column)(
        const dw_geometry *g, const REAL *x, const REAL *w, const VEC *laid, VEC bias, REAL *y, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t c,
        ptrdiff_t apart, ptrdiff_t pitch, const int K, const int S, const int T, const int strip, const int pattern, const int edge) {
    const ptrdiff_t first = c * S - g->pad, end = c + (T - 1) * apart + LANES, left = g->cols - c;
    const ptrdiff_t last = S == 1 ? (K - 1) * g->xw + end - 1 - g->pad : first + (S * T + 1) * LANES - 1;
    const int inside = !edge && first >= 0 && last < g->width && end <= g->cols;
    DW_ALIGNED VEC weights[49]; /* in one place, since `pitch` apart they have more addresses than there are registers */
    const VEC *wv = laid ? laid : weights;
    if (pattern && !laid) DW_UNROLL for (int k = 0; k < K * K; k++) weights[k] = DW(load)(w + k * pitch);
    if (pattern && K > 3) DW_HIDE(wv); /* 9 weights fit the registers, of 25 gcc would spill most */
    x += g->x0 + c * S;
    y += c;
#define RUN(m, checked)                                                                                                    \
    do {                                                                                                                   \
        if (!strip) DW(plane_slide)(g, x, w, bias, y, r0, r1, left, apart, m, K, S, T, checked);                           \
        else for (ptrdiff_t r = r0; r < r1; r += DW_PLANE_ROWS)                                                            \
            DW(plane_strip)(g, x, w, bias, y, dw_min(r, r1 - DW_PLANE_ROWS), r1, left, apart, m, K, S, wv, DW_PLANE_ROWS, T, pattern, \
                            checked);                                                                                      \
    } while (0)
    if (inside) RUN(NULL, 0);
    else {
        DW(dw_plane_lanes) m;
        DW(plane_lanes)(g, &m, c, apart, K, S, T);
        RUN(&m, 1);
    }
#undef RUN
}

/* ... of all columns; for strips at least DW_PLANE_ROWS rows, since the last one overlaps its neighbour. */
DW_INLINE void DW(plane_rows)(
        const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t b0, ptrdiff_t b1, const int K, const int S,
        const int T, const int strip, const int pattern) {
    const ptrdiff_t period = pattern ? g->period : 1, pitch = pattern ? g->ww : 0;
    const ptrdiff_t apart = pattern ? DW(vectors_apart)(period) : LANES;
    /* The weights of each place in the period, where they fit: to lay them side by side takes a quarter of a strip's time (5x5 from
     * afar; not measured with other vectors than AVX2's). */
    DW_ALIGNED VEC laid[DW_PACKED_BYTES / sizeof(VEC)];
    const int all = DW_BYTES == 32 && pattern && apart / LANES * (K * K) <= (ptrdiff_t)(DW_PACKED_BYTES / sizeof(VEC));
    for (ptrdiff_t k = 0; k < (all ? apart / LANES * (K * K) : 0); k++)
        laid[k] = DW(load)(w + k / (K * K) * LANES % period + k % (K * K) * pitch);
    /* Four strips share their weights, but for rows of a multiple of 4 KB, which are rivals for the same lines of L1 (3x3: 1.4 times), and
     * what comes from afar, in more rows than the CPU follows (1000x1000x3 and 8 x 224x224x3: 1.3 to 1.7; in L2 0.87). */
    const int few = !pattern || g->far || (K == 3 && g->xh * REAL_SIZE % 4096 == 0);
    const ptrdiff_t step = strip ? (few ? 1 : 4) * DW_PLANE_ROWS : b1 - b0;
    for (ptrdiff_t r0 = b0, r1; r0 < b1; r0 = r1) {
        r1 = dw_min(r0 + step, b1);
        for (ptrdiff_t base = 0; base < g->cols; base += apart) {
            const int many = g->cols - base > (T - 1) * apart;
            if (strip) DW(fetch_rows)(g, x + g->x0, y, r1, r1 - r0, base, many ? T * apart : apart, S);
            for (ptrdiff_t c = base; c < dw_min(base + apart, g->cols); c += LANES) {
                const ptrdiff_t phase = pattern ? c % period : 0;
                const VEC b = !bias ? DW(splat)(0) : pattern ? DW(load)(bias + phase) : DW(splat)(*bias);
                const VEC *const own = all ? laid + (c - base) / LANES * (K * K) : NULL;
                if (many) DW(plane_column)(g, x, w + phase, own, b, y, r0, r1, c, apart, pitch, K, S, T, strip, pattern, 0);
                else if (T > 1) DW(plane_column)(g, x, w + phase, own, b, y, r0, r1, c, apart, pitch, K, S, 1, strip, pattern, 1);
            }
            if (many) base += (T - 1) * apart;
        }
    }
}

DW_INLINE void DW(own_weights)(const dw_geometry *g, const REAL *w, REAL *own, const int K) {
    DW_UNROLL for (int k = 0; k < K * K; k++) own[k] = w[k / K * g->wh + k % K * g->ww];
}

/* A plane, its weights in one place; and flat rows, their repeated weights where they lie. */
#define TILE(K, S, T, SLIDE)                                                                                                       \
    static void DW(plane_##K##_##S)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, \
                                    ptrdiff_t r1) {                                                                         \
        REAL own[49];                                                                                                       \
        DW(own_weights)(g, w, own, K);                                                                                      \
        if (!SLIDE || (g->strips && r1 - r0 >= DW_PLANE_ROWS)) DW(plane_rows)(g, x, own, bias, y, r0, r1, K, S, T, 1, 0);    \
        else DW(plane_rows)(g, x, own, bias, y, r0, r1, K, S, T, !SLIDE, 0);                                                     \
    }
DW_PLANE_TILES(TILE)
#undef TILE
#define TILE(K, T)                                                                                                          \
    static void DW(flat_##K)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0,   \
                             ptrdiff_t r1) {                                                                                \
        DW(plane_rows)(g, x, w, bias, y, r0, r1, K, 1, T, 1, 1);                                                            \
    }
DW_FLAT_TILES(TILE)
#undef TILE

/* ---- shifted ---- */

/* Whether shifted tiles know the borders of a row, where taps j < K / 2 may miss inputs before it and taps j > (K - 1) / 2 those after
 * (even kernels have no middle tap, which misses none): padding of at most half a kernel, and only outputs of a row's last vector
 * (dilated: of two) miss inputs on the right; or others too, where a half vector computes them again (again). */
static int DW(borders_serve)(ptrdiff_t taps, ptrdiff_t dilation, ptrdiff_t stride, ptrdiff_t cols, ptrdiff_t width, ptrdiff_t pad,
                             const int again) {
    const ptrdiff_t after = width + pad; /* of input elements, from tap 0 of output 0 on */
    return pad <= taps / 2 * dilation && (cols - 1) * stride + (taps - 1) / 2 * dilation < after
           && (dilation > 1 || again || ((cols - 1) / LANES * LANES - 1) * stride + (taps - 1) * dilation < after);
}

/* Whether rows of two planes fit one vector of outputs, and at stride 2 their inputs one each. */
static int DW(pairs_serve)(ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t cols, ptrdiff_t width, ptrdiff_t pad) {
    return DW_SHIFTS && taps == 3 && cols <= LANES / 2 && (stride == 1 || dw_min((cols - 1) * stride + taps, pad + width) <= LANES);
}

/* Whether the last of some vectors of columns, from column c on, is half a vector, which then ends with the row: where that holds what is
 * left (rows of 17 to 24 1.2 to 1.3 times as fast, of 56 1.1; 3x3 at stride 2, which multiplies less than it shuffles, 0.85 to 1.1). */
DW_INLINE int DW(ends_by_half)(const dw_geometry *g, ptrdiff_t c, ptrdiff_t vectors, const int K, const int S) {
    return DW_SHIFTS && vectors > 1 && (K > 3 || S == 1) && g->cols - c - (vectors - 1) * LANES <= LANES / 2;
}

/* Whether there is a shifted tile for this geometry: 0, 1, or 2, where it takes the rows of two planes. */
static int DW(shifted_serve)(const dw_geometry *g) {
    /* 5x5: inputs past the row are loaded as zeros, those of 7x7 are not (rows of 33, 49, 65 1.2 times as fast as planes as channels) */
    const int again = g->kw == 5 && g->sw == 1 && DW(ends_by_half)(g, 0, dw_ceil_div(g->cols, LANES), 5, 1);
    int most = 0;
#define TILE(K, S, MOST) if (g->kh == K && g->kw == K && g->sh == S && g->sw == S) most = MOST;
    DW_SHIFTED_TILES(TILE)
#undef TILE
    if (!most || g->period > 1 || g->cols > (g->xw > 1 || (g->far && g->strips > 1) ? most * LANES : DW_SHIFTED_COLS)
        || (g->xw > 1 && (!DW_SHIFTS || g->kw != 3 || g->sw != 1 || g->xw > LANES / 2))
        || !DW(borders_serve)(g->kw, g->xw, g->sw, g->cols, g->width, g->pad, again))
        return 0;
    return DW(pairs_serve)(g->kw, g->sw, g->cols, g->width, g->pad) ? 2 : 1;
}

#if DW_SHIFTS
/* Of T vectors of columns: where the outputs of the last begin; inputs that exist, outputs of the last vector, and outputs of the first,
 * the last and, dilated, the one before it for which tap column j exists.  Nothing else is missing where `shifted_serve` says so.
 * two: of a half vector at stride 2, inputs that exist for tap columns 0 and 1, 2 and 3, ... */
typedef struct {
    ptrdiff_t at;
    MASK in[2 * DW_SHIFTED_VECTORS + 1], out, first[7], last[7], before[3], two[4];
} DW(dw_shifted_lanes);

DW_INLINE void DW(shifted_lanes)(const dw_geometry *g, DW(dw_shifted_lanes) *m, ptrdiff_t c, ptrdiff_t vectors, const int half) {
    const ptrdiff_t S = g->sw, before = g->pad - c * S, after = before + g->width;
    const ptrdiff_t last = m->at = half ? g->cols - c - LANES / 2 : (vectors - 1) * LANES;
    m->out = DW(lanes)(0, g->cols - c - last);
    for (ptrdiff_t i = 0; i < (half && S == 2 ? 4 : 0); i++) m->two[i] = DW(lanes)(before - last * S - 2 * i, after - last * S - 2 * i);
    for (ptrdiff_t k = 0; k <= S * vectors; k++) m->in[k] = DW(lanes)(before - k * LANES, after - k * LANES);
    for (ptrdiff_t j = 0; j < g->kw; j++) {
        const ptrdiff_t lo = dw_ceil_div(before - j * g->xw, S), hi = dw_ceil_div(after - j * g->xw, S);
        m->first[j] = DW(lanes)(lo, hi);
        m->last[j] = DW(lanes)(lo - last, hi - last);
        if (g->xw > 1) m->before[j] = DW(lanes)(lo - (vectors - 2) * LANES, hi - (vectors - 2) * LANES);
    }
}

/* From one plane to two, each in half of a vector. */
DW_INLINE void DW(pair_lanes)(const dw_geometry *g, DW(dw_shifted_lanes) *m) {
    enum { HALF = LANES / 2 };
    for (ptrdiff_t j = 0; j < g->kw; j++) m->first[j] = m->last[j] = (MASK)((m->last[j] & DW(lanes)(0, HALF)) | m->last[j] << HALF);
}

/* Inputs of a row of two planes, xc apart, each in half of a vector, for each tap column; x: that of the first output and column.  At stride 1
 * by loads: a shuffle of two vectors takes the place of a multiply-add (32 x 7x7x1024: 1.08 times as fast, its kernel gradient 1.1). */
DW_INLINE void DW(paired_inputs)(const REAL *x, VEC *v, const DW(dw_shifted_lanes) *m, ptrdiff_t xc, ptrdiff_t xw, const int S) {
    if (S == 1) {
        DW_UNROLL for (int j = 0; j < 3; j++) v[j] = DW(load_halves)(x + j * xw, x + j * xw + xc, m->first[j]);
    } else {
        const VEC one = DW(load_lanes)(x, m->in[0]), other = DW(load_lanes)(x + xc, m->in[0]);
        v[0] = DW(even)(one, other);
        v[1] = DW(odd)(one, other);
        v[2] = DW(shift)(v[0], v[0], 1);
    }
}

/* Every second number of two vectors, or the first of one, of which the taps across reach (K - 1) / 2 evens. */
DW_INLINE VEC DW(evens)(const VEC *in, const int two, const int K) {
    const IVEC lane = {DW_JOIN(DW_IOTA_, LANES)};
    return two ? DW(even)(in[0], in[1]) : K <= 4 ? in[0] : DW(permute)(in[0], lane + lane);
}

DW_INLINE VEC DW(odds)(const VEC *in, const int two) {
    const IVEC lane = {DW_JOIN(DW_IOTA_, LANES)};
    return two ? DW(odd)(in[0], in[1]) : DW(permute)(in[0], lane + lane + 1);
}

/* T vectors of inputs of a row for each tap column; x: that of the first output and column; half: a half vector follows.
 * dilated: loads, since a shift by any number is a shuffle of two vectors (28x28x256 dilated by 2: 1.1 times as fast); held, or gcc loads
 * for every multiply-add.  7x7: loads too, since of six shifts a vector not all find a place beside its multiply-adds (56x56: 1.15 times,
 * 5x5 0.96). */
DW_INLINE void DW(shifted_inputs)(const REAL *x, VEC *v, const DW(dw_shifted_lanes) *m, ptrdiff_t xw, const int K, const int S, const int T,
                                  const int dilated, const int half) {
    VEC in[2 * DW_SHIFTED_VECTORS + 2], part[2][DW_SHIFTED_VECTORS + 1];
    if (dilated || (K == 7 && S == 1)) {
        DW_UNROLL for (int j = 0; j < K; j++) {
            DW_UNROLL for (int k = 0; k < T; k++) {
                const int left = k == 0 && j < K / 2, right = j > (K - 1) / 2, before = dilated && k == T - 2 + half && right;
                const REAL *p = x + j * xw + k * LANES;
                if (!left && !before && k < T - 1 + half) v[j * T + k] = DW(load)(p);
                else v[j * T + k] = DW(load_lanes)(p, left ? m->first[j] : before ? m->before[j] : right ? m->last[j] : m->out);
                if (dilated) DW_HOLD(v[j * T + k]);
            }
        }
        return;
    }
    DW_UNROLL for (int k = 0; k <= S * T; k++)
        in[k] = 0 < k && k < S * (T - 1 + half) ? DW(load)(x + k * LANES) : DW(load_lanes)(x + k * LANES, m->in[k]);
    DW_UNROLL for (int k = 0; k <= T; k++) {
        part[0][k] = S == 1 ? in[k] : DW(evens)(in + S * k, k < T, K);
        if (S == 2) part[1][k] = DW(odds)(in + S * k, k < T);
    }
    DW_UNROLL for (int j = 0; j < K; j++)
        DW_UNROLL for (int k = 0; k < T; k++)
            v[j * T + k] = j < S ? part[j][k] : DW(shift)(part[j % S][k], part[j % S][k + 1], j / S);
}

/* Inputs of the half vector that ends a row, for each tap column; x: that of its first output and column.  By loads, of which few lie
 * across lines, and at stride 2 a shuffle each. */
DW_INLINE void DW(half_inputs)(const REAL *x, HVEC *v, const DW(dw_shifted_lanes) *m, ptrdiff_t xw, const int K, const int S) {
    const IVEC lane = {DW_JOIN(DW_IOTA_, LANES)};
    DW_UNROLL for (int j = 0; j < K; j += S, x += S * xw) {
        if (S == 1) v[j] = j > (K - 1) / 2 ? DW(load_half_lanes)(x, m->last[j]) : *(const HVEC *)x;
        else {
            const VEC two = j + 1 > (K - 1) / 2 ? DW(load_lanes)(x, m->two[j / 2]) : DW(load)(x);
            v[j] = DW(first_half)(DW(permute)(two, lane + lane));
            if (j + 1 < K) v[j + 1] = DW(first_half)(DW(permute)(two, lane + lane + 1));
        }
    }
}

/* x, y: row 0, the first of the T vectors of columns, after which a half one may follow.  paired: of two planes, xc and yc apart, whose
 * weights are pair, not w. */
DW_INLINE void DW(shifted_rows)(const dw_geometry *g, const REAL *x, const REAL *w, const VEC *pair, VEC bias, REAL *y, ptrdiff_t r0,
                                ptrdiff_t r1, const DW(dw_shifted_lanes) m, const REAL *lo, const REAL *hi, ptrdiff_t xc, ptrdiff_t yc,
                                const int K, const int S, const int T, const int paired, const int dilated, const int half) {
    (void)lo, (void)hi; /* nothing else is loaded */
    const int A = (K + S - 1) / S; /* rows of outputs that an input row reaches */
    const int V = T + half;        /* vectors, whole or half */
    VEC wv[9], acc[7 * DW_SHIFTED_VECTORS];
    if (K <= 3) DW_UNROLL for (int k = 0; k < K * K; k++) wv[k] = paired ? pair[k] : DW(splat)(w[k]);
    DW_UNROLL for (int k = 0; k < A * V; k++) acc[k] = bias;
    const ptrdiff_t xh = g->xh, xw = g->xw, yh = g->yh, t0 = g->row_lo, t1 = g->row_hi;
    x += r0 * S * xh;
    y += (r0 - A + 1) * yh;
    for (ptrdiff_t r = r0; r < r1 + A - 1; r++) { /* acc[a * V]: output row r - (A - 1) + a */
        DW_UNROLL for (int s = 0; s < S; s++) {
            if (t0 <= r * S + s && r * S + s < t1) {
                VEC v[7 * DW_SHIFTED_VECTORS];
                HVEC last[7];
                if (half) DW(half_inputs)(x + m.at * S, last, &m, xw, K, S);
                if (paired) DW(paired_inputs)(x, v, &m, xc, xw, S);
                else DW(shifted_inputs)(x, v, &m, xw, K, S, T, dilated, half);
                DW_UNROLL for (int a = 0; a < A; a++) {
                    const ptrdiff_t row = r - (A - 1) + a; /* larger kernels feel those that there are not (28x28 7x7: 1.03 times) */
                    if (K > 3 && S == 1 && (row < r0 || row >= r1)) continue;
                    DW_UNROLL for (int j = 0; j < K; j++) {
                        const int i = s + (A - 1 - a) * S, tap = i * K + j;
                        if (i >= K) continue;
                        const VEC weight = K <= 3 ? wv[tap] : DW(load_splat)(w + tap);
                        DW_UNROLL for (int k = 0; k < T; k++) {
                            VEC *const sum = acc + a * V + k;
                            const VEC in = v[j * T + k];
                            if (k == 0 && j < K / 2) *sum = DW(add_product)(*sum, in, weight, m.first[j]);
                            else if (k == T - 1 + half && j > (K - 1) / 2) *sum = DW(add_product)(*sum, in, weight, m.last[j]);
                            else if (dilated && k == T - 2 + half && j > (K - 1) / 2) *sum = DW(add_product)(*sum, in, weight, m.before[j]);
                            else *sum = *sum + in * weight;
                        }
                        VEC *const sum = acc + a * V + T;
                        if (half && j > (K - 1) / 2) *sum = DW(add_half_product)(*sum, last[j], weight, m.last[j]);
                        else if (half) *sum = DW(add_half)(*sum, last[j], weight);
                    }
                }
            }
            x += xh;
        }
        if (r >= r0 + A - 1) {
            DW(clamp_all)(g, acc, V);
            DW_UNROLL for (int k = 0; k < V - 1; k++) DW(store)(y + k * LANES, acc[k]);
            if (paired) {
                DW(store_half)(y, acc[0], m.out, 0);
                DW(store_half)(y + yc, acc[0], m.out, 1);
            } else if (half) *(HVEC *)(y + m.at) = DW(first_half)(acc[T]);
            else DW(store_lanes)(y + (T - 1) * LANES, acc[T - 1], m.out);
        }
        DW_UNROLL for (int a = 0; a < A; a++)
            DW_UNROLL for (int k = 0; k < V; k++) acc[a * V + k] = a < A - 1 ? acc[a * V + V + k] : bias;
        y += yh;
    }
}

#elif DW_BYTES == 32
/* T vectors of columns: how many outputs the last has, and for each tap column the lanes of the first vector (left of the middle) or
 * the last whose inputs exist.  Nothing else is missing where `shifted_serve` says so. */
typedef struct {
    ptrdiff_t out;
    MASK in[3];
} DW(dw_shifted_lanes);

DW_INLINE void DW(shifted_lanes)(const dw_geometry *g, DW(dw_shifted_lanes) *m, ptrdiff_t c, ptrdiff_t vectors, const int half) {
    const ptrdiff_t S = g->sw, last = (vectors - 1) * LANES;
    (void)half; /* none is */
    m->out = g->cols - c - last;
    for (ptrdiff_t j = 0; j < g->kw; j++) {
        const ptrdiff_t before = g->pad - j - (j > (g->kw - 1) / 2 ? c + last : c) * S;
        m->in[j] = DW(lanes)(dw_ceil_div(before, S), dw_ceil_div(before + g->width, S));
        if (S == 2) m->in[j] = (MASK)DW(turn)((VEC)m->in[j]);
    }
}

/* As with AVX-512, but a shift takes as long as a load, even of what lies across lines, and a masked load as long as several: so each
 * tap column is loaded, lanes that miss it are 0 in the input and -0 in the weight, which adds -0 and so changes no sum, and rows are
 * loaded past their ends.  lo, hi: what may be read; rows that would leave it, the first and the last, are copied. */
DW_INLINE void DW(shifted_rows)(const dw_geometry *g, const REAL *x, const REAL *w, const VEC *pair, VEC bias, REAL *y, ptrdiff_t r0,
                                ptrdiff_t r1, const DW(dw_shifted_lanes) m, const REAL *lo, const REAL *hi, ptrdiff_t xc, ptrdiff_t yc,
                                const int K, const int S, const int T, const int paired, const int dilated, const int half) {
    (void)pair, (void)xc, (void)yc, (void)paired, (void)dilated, (void)half; /* planes one by one, no gaps between taps, whole vectors */
    enum { MOST = DW_SHIFTED_VECTORS };
    const int A = (K + S - 1) / S; /* rows of outputs that an input row reaches */
    const ptrdiff_t xh = g->xh, yh = g->yh, t0 = g->row_lo, t1 = dw_min(g->row_hi, (r1 - 1) * S + K), size = S * T * LANES + K - 1;
    VEC acc[3 * MOST], edge[9]; /* edge: weights of vectors that may miss inputs */
    REAL copy[2 * MOST * LANES + 2];
    DW_UNROLL for (int k = 0; k < K * K; k++) edge[k] = DW(else_minus_zero)(DW(splat)(w[k]), m.in[k % K]);
    DW_UNROLL for (int k = 0; k < A * T; k++) acc[k] = bias;
    x += r0 * S * xh;
    y += (r0 - A + 1) * yh;
    for (ptrdiff_t r = r0; r < r1 + A - 1; r++) { /* acc[a * T]: output row r - (A - 1) + a */
        DW_UNROLL for (int s = 0; s < S; s++, x += xh) {
            const REAL *from = x;
            if (r * S + s < t0 || r * S + s >= t1) continue;
            if (x < lo || x + size > hi) {
                for (ptrdiff_t k = 0; k < size; k++) copy[k] = x + k < lo || x + k >= hi ? 0 : x[k];
                from = copy;
            }
            DW_UNROLL for (int j = 0; j < K; j += S) { /* with stride 2 two tap columns, whose vectors are the same */
                DW_UNROLL for (int k = 0; k < T; k++) {
                    const REAL *at = from + S * k * LANES + j;
                    VEC v[2];
                    DW(load_turned)(at, v, S);
                    DW_UNROLL for (int i = 0; i < S && j + i < K; i++) {
                        const int border = (k == 0 && j + i < K / 2) || (k == T - 1 && j + i > (K - 1) / 2);
                        if (border) v[i] = (VEC)((IVEC)v[i] & m.in[j + i]);
                        DW_UNROLL for (int a = 0; a < A; a++) {
                            const int row = s + (A - 1 - a) * S, tap = row * K + j + i;
                            if (row < K) acc[a * T + k] = acc[a * T + k] + v[i] * (border ? edge[tap] : DW(splat)(w[tap]));
                        }
                    }
                }
            }
        }
        if (r >= r0 + A - 1) {
            if (S == 2) DW_UNROLL for (int k = 0; k < T; k++) acc[k] = DW(turn)(acc[k]);
            DW(clamp_all)(g, acc, T);
            DW_UNROLL for (int k = 0; k < T - 1; k++) DW(store)(y + k * LANES, acc[k]);
            DW(store_first)(y + (T - 1) * LANES, acc[T - 1], m.out);
        }
        DW_UNROLL for (int a = 0; a < A; a++)
            DW_UNROLL for (int k = 0; k < T; k++) acc[a * T + k] = a < A - 1 ? acc[a * T + T + k] : bias;
        y += yh;
    }
}

#endif

#if DW_SHIFTS || DW_BYTES == 32
/* Some planes, xc and yc apart, in blocks of `most` vectors of columns at most.  Masks are made once: they cost as much as some rows. */
DW_INLINE void DW(shifted_planes)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0,
                                  ptrdiff_t r1, ptrdiff_t planes, ptrdiff_t xc, ptrdiff_t yc, const int K, const int S, const int most) {
    DW(dw_shifted_lanes) m[DW_SHIFTED_COLS / LANES / DW_SHIFTED_LEAST + 1];
    const ptrdiff_t vectors = dw_ceil_div(g->cols, LANES), blocks = dw_ceil_div(vectors, most);
    const ptrdiff_t t0 = dw_max(g->row_lo, r0 * S), t1 = dw_min(g->row_hi, (r1 - 1) * S + K);
    const ptrdiff_t down = (t1 - 1 - t0) * g->xh, over = (planes - 1) * xc; /* either may be negative */
    const REAL *lo = x + g->x0 + g->pad + t0 * g->xh + dw_min(down, 0) + dw_min(over, 0); /* lo, hi: what may be read */
    const REAL *hi = lo + dw_max(down, -down) + dw_max(over, -over) + g->width;
    for (ptrdiff_t b = 0, v = 0, end; b < blocks; b++, v = end) {
        end = vectors * (b + 1) / blocks;
        DW(shifted_lanes)(g, m + b, v * LANES, end - v, DW(ends_by_half)(g, v * LANES, end - v, K, S));
    }
    x += g->x0;
#if DW_SHIFTS
    if (K == 3 && planes > 1 && DW(shifted_serve)(g) == 2) {
        DW(pair_lanes)(g, m);
        for (; planes > 0; planes -= 2, x += 2 * xc, y += 2 * yc, w += 2, bias += bias ? 2 : 0) {
            const int other = planes > 1; /* the last of an odd number is taken twice */
            const VEC start = !bias ? DW(splat)(0) : other ? DW(load_two_splats)(bias) : DW(load_splat)(bias);
            VEC pair[9];
            if (other) DW_UNROLL for (int k = 0; k < 9; k++) pair[k] = DW(load_two_splats)(w + k / 3 * g->wh + k % 3 * g->ww);
            else DW_UNROLL for (int k = 0; k < 9; k++) pair[k] = DW(load_splat)(w + k / 3 * g->wh + k % 3 * g->ww);
            DW(shifted_rows)(g, x, NULL, pair, start, y, r0, r1, m[0], lo, hi, other * xc, other * yc, K, S, 1, 1, 0, 0);
        }
        return;
    }
#endif
    for (; planes > 0; planes--, x += xc, y += yc, w++) {
        const VEC start = DW(splat)(bias ? *bias++ : 0);
        REAL own[49];
        DW(own_weights)(g, w, own, K);
        for (ptrdiff_t b = 0, v = 0, end; b < blocks; b++, v = end) {
            end = vectors * (b + 1) / blocks;
#define ROWS(T, dilated, half)                                                                                              \
    DW(shifted_rows)(g, x + v * LANES * S, own, NULL, start, y + v * LANES, r0, r1, m[b], lo, hi, 0, 0, K, S, T, 0, dilated, half)
#define RUN(T)                                                                                                     \
            if (T <= most && end - v == T) {                                                                       \
                const int dilated = DW_SHIFTS && K == 3 && S == 1 && g->xw > 1, half = DW(ends_by_half)(g, v * LANES, T, K, S); \
                if (T > 1 && dilated && half) ROWS(T - 1, 1, 1);                                                            \
                else if (dilated) ROWS(T, 1, 0);                                                                   \
                else if (T > 1 && half) ROWS(T - 1, 0, 1);                                                                  \
                else ROWS(T, 0, 0);                                                                                \
            }
            RUN(1);
            RUN(2);
            RUN(3);
            RUN(4);
#undef RUN
#undef ROWS
        }
    }
}

#define TILE(K, S, MOST)                                                                                                    \
    static void DW(shifted_##K##_##S)(const dw_geometry *g, const REAL *x, const REAL *w, const REAL *bias, REAL *y, ptrdiff_t r0, \
                                      ptrdiff_t r1, ptrdiff_t planes, ptrdiff_t xc, ptrdiff_t yc) {                         \
        DW(shifted_planes)(g, x, w, bias, y, r0, r1, planes, xc, yc, K, S, MOST);                                           \
    }
DW_SHIFTED_TILES(TILE)
#undef TILE
#endif
#undef DW_PLANE_ARGUMENTS
