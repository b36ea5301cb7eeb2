"""The user's keras.json: one setting of it, `image_data_format`, read when a layer is made and never at import.

Nothing is ever written, made or kept, and no file can stop a program: one that is missing gives the default, one that
is broken or wrong gives the default and one warning in the life of the process.  Only a regular file of a sensible size
is opened, so that a FIFO does not block and a huge file does not fill the memory.
"""

import json
import os
import stat
import warnings

from ._messages import short

DEFAULT = "channels_last"
_FORMATS = ("channels_last", "channels_first")
_MOST_BYTES = 2**20  # Keras itself writes about 120
_warned = set()  # paths


def path():
    """Where Keras looks: in the folder that KERAS_HOME names, else in ~/.keras."""
    return os.path.expanduser(os.path.join(os.environ.get("KERAS_HOME", os.path.join("~", ".keras")), "keras.json"))


def _read(name):
    """The value of `image_data_format` in that file; OSError, ValueError or RecursionError if it has none that is right."""
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > _MOST_BYTES:
        raise ValueError(f"it has {status.st_size} bytes, more than {_MOST_BYTES}")
    with open(name, "rb") as file:
        config = json.loads(file.read(_MOST_BYTES).decode())
    if not isinstance(config, dict):
        raise ValueError("it does not hold a JSON object")
    value = config.get("image_data_format", DEFAULT)
    if value not in _FORMATS:
        raise ValueError(f"image_data_format must be one of {', '.join(_FORMATS)}, not {short(value)}")
    return value


def image_data_format():
    """The layout of images that the user's keras.json asks for.

    Returns
    -------
    {"channels_last", "channels_first"}
        The former where there is no such file, or none that can be read and understood.

    Warns
    -----
    UserWarning
        Once for a file that is there but broken or wrong.
    """
    name = path()
    try:
        return _read(name)
    except FileNotFoundError:
        return DEFAULT
    except (OSError, ValueError, RecursionError) as error:
        if name not in _warned:
            _warned.add(name)
            warnings.warn(f"{name!r:.200} is ignored: {str(error)[:200] or type(error).__name__}", stacklevel=4)
        return DEFAULT
