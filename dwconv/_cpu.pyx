# cython: language_level=3
"""Which of the kernels' instruction sets this CPU and operating system run.

Its own module, built without vector flags: a check compiled with the instructions that it checks for would crash
first (RapidFuzz #383).  It answers for the sets that setup.py builds, nothing else.
"""

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    /* __builtin_cpu_supports also asks whether the operating system saves the registers (XGETBV). */
    static int dw_level(void) {
        unsigned a, b, c = 0, d, c_extended = 0;
        __builtin_cpu_init();
        __get_cpuid(1, &a, &b, &c, &d);
        __get_cpuid(0x80000001, &a, &b, &c_extended, &d);
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi")
            || !__builtin_cpu_supports("bmi2") || !(c & bit_F16C) || !(c & bit_MOVBE) || !(c_extended & bit_LZCNT))
            return 0;
        return 1 + (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd")
                    && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
    }
    #else
    static int dw_level(void) { return 0; }
    #endif
    """
    int dw_level()


def instruction_sets():
    """Names of the kernels' instruction sets that run here, best first; "baseline" is always the last."""
    return ["avx512", "avx2", "baseline"][2 - dw_level():]
