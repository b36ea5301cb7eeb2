"""What a file of weights comes to, in any format: kernels and biases by name, none of them read yet; and what formats share.

An `Entry` is one layer's weights.  Its `Variable`s tell their shapes, so that a file is compared with a layer before a byte of
an array is read or room for it is made.  Refused: whatever declares more than it stores, zip members that grow more than a
hundredfold, dtypes that are no real numbers.  Nothing is unpickled, and no name in a file becomes a path.
"""

import contextlib
import importlib
import math
import os
import stat
import typing
import zipfile

import numpy as np

# Names of the variables of a layer: NumPy's users', Keras 2's and TensorFlow's ("depthwise_kernel:0"), Keras 3's, `np.savez`'s
KERNELS = ("depthwise_kernel", "kernel", "0", "arr_0")
BIASES = ("bias", "1", "arr_1")
_HARMLESS_BYTES, _MOST_RATIO = 2**24, 100  # of a zip member that is inflated; Keras has 4 GiB and the same ratio


class Variable(typing.NamedTuple):
    """An array in a file: its shape, and the function that reads it."""

    shape: tuple
    read: typing.Callable


class Entry(typing.NamedTuple):
    """One layer's weights: `group` is where the file has them, `depthwise` whether it says that the layer is depthwise.

    `kernel` is None where the file describes a layer and has no weights for it; `config` is the layer's, None if not known.
    """

    kernel: Variable | None
    bias: Variable | None
    group: str
    depthwise: bool = False
    config: dict | None = None


def entry(variables, group, depthwise=False):
    """The `Entry` for ``{leaf name: Variable}``; None where there is no kernel (kh, kw, C, M)."""
    leaves = {leaf.removesuffix(":0"): variable for leaf, variable in variables.items()}
    kernel, bias = (next((leaves[leaf] for leaf in names if leaf in leaves), None) for names in (KERNELS, BIASES))
    if kernel is None or len(kernel.shape) != 4:
        return None
    if "pointwise_kernel" in leaves or (bias is not None and len(bias.shape) == 4):  # of a SeparableConv2D: not the bias of this
        bias = None
    return Entry(kernel, bias, group, depthwise)


def split(name):
    """(group, leaf) of a flat name: "block.dw.kernel" and "block/dw/kernel" give the same leaf; (name, None) for no weights'."""
    cut = max(name.rfind("/"), name.rfind("."))
    leaf = name[cut + 1 :]
    return (name[: max(cut, 0)], leaf) if leaf.removesuffix(":0") in KERNELS + BIASES else (name, None)


def check_size(declared, shape, dtype, stored):
    """ValueError unless that many bytes are stored for an array of real numbers."""
    if dtype.kind not in "fiub":
        raise ValueError(f"{declared} has dtype {str(dtype)[:80]}, which is no real number")
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted != stored:
        raise ValueError(f"{declared} declares shape {str(shape)[:80]}, {wanted} bytes, and stores {stored}")


# --- files


def clipped(path):
    """The end of a path, if it is long."""
    return path if len(path) <= 120 else "..." + path[-117:]


def shown(path):
    """A path in messages."""
    return repr(clipped(path))


def brief(error):
    text = " ".join(str(error).split())
    return (text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}")[:300]


@contextlib.contextmanager
def refusals(path):
    """Whatever a parser raises becomes a ValueError, or stays an OSError, of a few hundred characters that names the file."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except OSError as error:
        if error.errno and error.strerror:
            raise OSError(error.errno, error.strerror, clipped(path)) from None  # of the same class
        raise OSError(f"{shown(path)}: {brief(error)}") from error
    except Exception as error:  # zipfile, h5py, json, safetensors have all kinds of them for broken files
        raise ValueError(f"{shown(path)}: {brief(error)}") from error


def regular_size(path):
    """The size of a file; ValueError for what is no file, so that opening a FIFO does not block."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    return status.st_size


def optional(module, extra):
    """An optional package; ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'this file needs {module}: pip install "dwconv[{extra}]"') from error


# --- zip


def checked_zip(file):
    """The archive; ValueError if a name is there twice or leads out of a folder (nothing is extracted, but it is no model)."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    if len({*names}) < len(names):
        raise ValueError("two members of the zip have one name")
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise ValueError(f"the zip has a member named {name!r:.80}")
    return archive


def checked_member(archive, name, size):
    """What a zip of `size` bytes says of a member; ValueError for one that cannot be read in reasonable memory."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # of others zipfile unpacks all before it counts
        raise ValueError(f"member {name!r:.80} is compressed by method {info.compress_type}, which NumPy and Keras never use")
    if info.compress_size > size or info.file_size > max(_HARMLESS_BYTES, _MOST_RATIO * info.compress_size):
        raise ValueError(f"member {name!r:.80} declares {info.file_size} bytes, {info.compress_size} in the zip of {size}")
    return info


def read_member(archive, info):
    """The bytes of a member, as many as it declares: `archive.read` would unpack all that a file has that lies about its size."""
    with archive.open(info) as file:
        return file.read(info.file_size)


def npz_variable(archive, name, size):
    """The `Variable` of a member of an .npz, from its header alone; version 3.0 is for names of fields, which no weight has."""
    info = checked_member(archive, name, size)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"member {name!r:.80} has version {version} of the .npy format, not 1.0 or 2.0")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        start = file.tell()
    check_size(f"member {name!r:.80}", shape, dtype, info.file_size - start)

    def read():
        return np.frombuffer(read_member(archive, info), dtype, offset=start).reshape(shape, order="F" if fortran else "C")

    return Variable(shape, read)
