/* What the CPU can do at most, for `python -m dwconv bench`: multiply-adds in registers, and copies.
 *
 * A template as _simd.h, and included after it.  It refuses to time: the caller does, and takes the best of several rounds.
 * Here and not in Python, since no NumPy function multiplies and adds at the CPU's own rate, and the length of a vector is
 * known to a kernels module only.
 */
#ifndef DW_PEAK_ONCE
#define DW_PEAK_ONCE

#include <string.h>

enum { DW_CHAINS = 12 }; /* two units of latency 4 are kept busy by 8; with both factors they fit 16 registers */

static void dw_copies(unsigned char *target, const unsigned char *source, ptrdiff_t size, ptrdiff_t repeats) {
    void *(*volatile copy)(void *, const void *, size_t) = memcpy; /* else the compiler may leave all but the last out */
    for (ptrdiff_t r = 0; r < repeats; r++) copy(target, source, (size_t)size);
}

#endif /* DW_PEAK_ONCE */

/* The number of multiply-adds done, in `steps` steps of independent chains. */
static ptrdiff_t DW(multiply_adds)(ptrdiff_t steps) {
    volatile REAL factor = (REAL)0.999, term = (REAL)0.001; /* of known ones gcc computes a chain beforehand */
    const VEC b = DW(splat)(factor), c = DW(splat)(term); /* chains tend to 1: no subnormals, no overflow */
    VEC acc[DW_CHAINS];
    REAL lane[LANES], sum = 0;
    DW_UNROLL for (int k = 0; k < DW_CHAINS; k++) acc[k] = DW(splat)((REAL)k);
    for (ptrdiff_t i = 0; i < steps; i++)
        DW_UNROLL for (int k = 0; k < DW_CHAINS; k++) acc[k] = acc[k] * b + c;
    DW_UNROLL for (int k = 1; k < DW_CHAINS; k++) acc[0] = acc[0] + acc[k];
    DW(store)(lane, acc[0]);
    for (int l = 0; l < LANES; l++) sum += lane[l];
    factor = sum; /* else nothing needs to be computed */
    return steps * DW_CHAINS * LANES;
}
