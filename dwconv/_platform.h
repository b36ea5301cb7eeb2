/* What depends on the compiler and the CPU, and not on a type: OpenMP or its absence, the compiler's name, the size of the last cache.
 *
 * Refused here: anything that a tile needs (_simd.h).  Plain C, since Cython has no words for what the preprocessor knows.
 */
#ifdef _MSC_VER                      /* one lane: nothing to align for */
#include <stdlib.h>
#define aligned_alloc(alignment, size) malloc(size)
#endif
#ifdef _OPENMP
#include <omp.h>
#define dw_max_threads omp_get_max_threads
#define dw_thread_num omp_get_thread_num
#define dw_seconds omp_get_wtime
enum { DW_OPENMP = 1 };
#else
#define dw_max_threads() 1
#define dw_thread_num() 0
#include <time.h>
#define dw_seconds() ((double)clock() / CLOCKS_PER_SEC)
enum { DW_OPENMP = 0 };
#endif
enum { DW_VECTOR_BYTES = DW_BYTES };
#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
/* Bytes of the third cache by the leaves of AMD and of Intel, 0 if they tell none.  glibc answers for all of a socket's. */
static ptrdiff_t dw_third_cache(void) {
    unsigned leaf, a, b, c, d;
    for (leaf = 0x8000001d;; leaf = 4) {
        if (__get_cpuid_count(leaf, 3, &a, &b, &c, &d) && (a & 31) && (a >> 5 & 7) == 3)
            return (ptrdiff_t)((b >> 22) + 1) * ((b >> 12 & 1023) + 1) * ((b & 4095) + 1) * (c + 1);
        if (leaf == 4) return 0;
    }
}
#else
static ptrdiff_t dw_third_cache(void) { return 0; }
#endif
#ifdef __clang__
#define DW_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define DW_COMPILER "gcc " __VERSION__
#elif defined(_MSC_VER)
#define DW_COMPILER "msvc"
#else
#define DW_COMPILER "unknown"
#endif
