# cython: language_level=3, embedsignature=True
include "_kernels.pyx"
