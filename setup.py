"""Builds the extensions: one Cython source compiled once per instruction set, and the CPU check without any flags.

Everything else is in pyproject.toml.  Switches in the environment:
  DWCONV_OPENMP=auto|1|0   threads: if the compiler can (default), or else an error, or never
  DWCONV_NATIVE=1          -march=native for the baseline module; never the default, the result runs on this CPU only
  DWCONV_DEBUG=1           bounds checks on, -g1 (functions and lines; with -g such unrolled code takes twice as long)
  DWCONV_MODULES=avx2      only these kernels modules: some of baseline,avx2,avx512; one that fails to build is an error
Vector flags belong to their kernels module only, and there is no -ffast-math: it breaks NaN, and linked into a shared
library it switches subnormals off for the whole process.
"""

import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG, NATIVE = (os.environ.get(name, "0") == "1" for name in ("DWCONV_DEBUG", "DWCONV_NATIVE"))
if (OPENMP := os.environ.get("DWCONV_OPENMP", "auto")) not in ("auto", "0", "1"):
    sys.exit(f"DWCONV_OPENMP must be auto, 0 or 1, not {OPENMP!r}")

V3 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]
KERNELS = {  # instruction set: its module, and its flags in the spelling of gcc and clang; the longest to compile first
    "avx512": ("_kernels_avx512", V4),
    "avx2": ("_kernels_avx2", V3),
    "baseline": ("_kernels", ["-march=native"] if NATIVE else []),
}
NAMED = [name for name in os.environ.get("DWCONV_MODULES", "").split(",") if name]
if not set(NAMED) <= set(KERNELS):
    sys.exit(f"DWCONV_MODULES must name some of {','.join(KERNELS)}, not {','.join(NAMED)!r}")
# -O2: the tiles are unrolled by pragma and vectorised by hand, -O3 builds for half as long again and gains nothing;
# what it would vectorise besides is the masks' scalar arithmetic, which made borders ten times slower.
# errno, trapping: nothing here reads either, both forbid ordinary simplifications.  Aligned jumps: 30 KB more, no faster.
SPEED = ["-O2", "-g0", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=fast", "-fno-math-errno",
         "-fno-trapping-math", "-fno-align-jumps", "-fno-align-labels"]
# With less optimisation gcc makes no multiply-adds, and the bits would depend on the tile; see _tiles.h.
CHECKED = [*(flag for flag in SPEED if flag != "-g0"), "-g1", "-UNDEBUG"]
DIRECTIVES = {"boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True,
              "freethreading_compatible": True}
OPENMP_FLAGS = {  # compiler type: (compile, link), tried in turn
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "msvc": [(["/openmp"], [])],
}
PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"


class BuildExt(build_ext):
    """Adds what depends on the compiler: OpenMP if it links, flags in its spelling; compiles modules side by side."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.force = True  # switches and flags are no timestamps: see build_extension

    def build_extensions(self):
        compile_flags, link_flags = self.openmp_flags() if OPENMP != "0" else ([], [])
        for extension in self.extensions:
            if extension.name.startswith("dwconv._kernels"):
                if self.compiler.compiler_type != "msvc":
                    extension.extra_compile_args += CHECKED if DEBUG else SPEED
                extension.extra_compile_args += compile_flags
                extension.extra_link_args += link_flags
            extension.extra_link_args += [] if DEBUG or sys.platform != "linux" else ["-Wl,-s"]
        super().build_extensions()

    def build_extension(self, extension):
        """Compiles, which takes minutes, unless the same sources were compiled here before by the same commands."""
        command, linker = (getattr(self.compiler, name, None) or [sys.executable] for name in ("compiler_so", "linker_so"))
        version = subprocess.run([*command, "--version"], capture_output=True).stdout
        once = os.urandom(8) if NATIVE else None  # -march=native does not name this CPU
        flags = repr((sys.version, command, linker, extension.extra_compile_args, extension.extra_link_args, once)).encode()
        sources = [Path(name).read_bytes() for name in [*extension.sources, *sorted(glob.glob("dwconv/*.h"))]]
        key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (version, flags, *sources))).hexdigest()
        target, made = Path(self.get_ext_fullpath(extension.name)), Path("build", "made", f"{extension.name}.{key}")
        if not made.exists():
            super().build_extension(extension)
        source, copy = (made, target) if made.exists() else (target, made)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.replace(shutil.copy(source, f"{copy}.{os.getpid()}"), copy)  # whole, and not under a process that uses it

    def openmp_flags(self):
        """The first pair of flags that compiles and links a program with OpenMP."""
        for compile_flags, link_flags in OPENMP_FLAGS.get(self.compiler.compiler_type, []):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text(PROBE, encoding="ascii")
                try:
                    objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=compile_flags)
                    self.compiler.link_executable(objects, os.path.join(folder, "probe"), extra_postargs=link_flags)
                except Exception as error:  # each compiler class has errors of its own
                    print(f"dwconv: no OpenMP with {compile_flags}: {error}", file=sys.stderr)
                else:
                    return compile_flags, link_flags
        if OPENMP == "1":
            sys.exit("DWCONV_OPENMP=1, but the compiler cannot build a program with OpenMP")
        print("dwconv: WARNING: built without OpenMP, every call will use one thread", file=sys.stderr)
        return [], []


def extensions():  # _cython_dw: Cython's memoryviews once for all modules, of which each is 110 KB smaller
    found = [Extension("dwconv._cpu", ["dwconv/_cpu.pyx"]), Extension(shared := "dwconv._cython_dw", ["dwconv/_cython_dw.c"])]
    x86_64 = platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32 and os.name != "nt"
    for name, (module, flags) in KERNELS.items():
        if name in NAMED if NAMED else name == "baseline" or x86_64:
            # optional: a compiler that does not know the instruction set still builds the baseline; show_config tells
            found.append(Extension(f"dwconv.{module}", [f"dwconv/{module}.pyx"], extra_compile_args=list(flags),
                                   optional=name != "baseline" and not NAMED))
    return cythonize(found, compiler_directives=DIRECTIVES, force=True, shared_utility_qualified_name=shared)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
