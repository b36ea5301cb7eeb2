"""Weights in the HDF5 files of Keras 2 and 3: which group holds which layer's, read with nothing trusted.

Two layouts.  Keras 3, and Keras 2 in .keras and .weights.h5: groups numbered by class in the model's order,
layers/depthwise_conv2d_1/vars/0; Keras 3 adds the layer's name as an attribute.  The older .h5: groups by layer name, and in
them TensorFlow's names of variables, dw_1/dw_1/depthwise_kernel:0.  Where the file has the model's config, it says which layers
are depthwise; else the groups' names do.

Refused: links other than hard ones, and two to one object; arrays that are external, virtual, chunked or compressed (Keras writes
none of these), or larger than what is stored of them.  So a file is followed nowhere, no loop in it is endless, and reading
takes no more memory than the file has bytes.  Objects of the model are never made here, configs are only looked at.
"""

import json
import os
import re

from . import _layer_checks as checks
from ._weight_entries import Entry, Variable, check_size, entry, optional

EXTRA = "keras-files"
_MOST_NAME, _MOST_PATH, _MOST_CONFIG = 1000, 2000, 2**23  # characters
_MOST_LAYERS = 2000  # depthwise ones in a model
_CLASSES = ("DepthwiseConv2D", "SeparableConv2D")
_GROUP = re.compile(r"(depthwise|separable)_conv2d(_\d+)?")
# What of a SeparableConv2D's config is its depthwise half's
_HALF = ("name", "trainable", "dtype", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier",
         "depthwise_initializer", "depthwise_regularizer", "depthwise_constraint")


def entries(file, content, config=None):
    """``{layer name: Entry}`` of an HDF5 file, and the file itself, to be closed after the last read.

    `content` is bytes or a memory map of the same; `config` the model's, if not the file's own.
    """
    _check_heaps(content)
    size = len(content)
    h5 = optional("h5py", EXTRA).File(file, "r")
    try:
        groups, labels = _walk(h5, size)
        if config is None and (text := _text(h5, "model_config", size)) is not None:
            config = model_config(text)
        # layer_names, or layer_names0 and so on where there are too many for one attribute
        older = any(key.startswith("layer_names") for key in h5.get("model_weights", h5).attrs)
        return _named(groups, labels, config, older), h5
    except BaseException:
        h5.close()
        raise


def model_config(text):
    """The dict in a model's JSON."""
    if len(text) > _MOST_CONFIG:
        raise ValueError(f"the model's config has {len(text)} characters, more than {_MOST_CONFIG}")
    config = json.loads(text)
    if not isinstance(config, dict) or "config" not in config:
        raise ValueError("the model's config is not one of Keras: a JSON object with a config")
    return config


def write(file, name, weights):
    """What Keras 3 writes for a Sequential of one DepthwiseConv2D; ``model.load_weights`` of Keras 2 and 3 reads it."""
    with optional("h5py", EXTRA).File(file, "w") as h5:
        h5.create_group("vars")
        group = h5.create_group("layers/depthwise_conv2d/vars")
        group.attrs["name"] = name
        for index, weight in enumerate(weights):
            dataset = group.create_dataset(str(index), data=weight)
            if weight.dtype.name == "bfloat16":
                dataset.attrs["dtype"] = "bfloat16"  # HDF5 has no such type, and keeps it as two bytes without a meaning


# --- reading


def _check_heaps(content):
    """ValueError for a heap of strings with an object of no size, in which libhdf5 (to 2.0 at least) walks for ever.

    Format: "Global Heap" in the HDF5 File Format Specification 3.0, III.E.  What it says of sizes and versions libhdf5 checks.
    """
    heap, left = content.find(b"GCOL"), len(content)
    while heap >= 0:
        size = int.from_bytes(content[heap + 8 : heap + 16], "little")
        end, position = heap + size, heap + 16
        if content[heap + 4 : heap + 5] == b"\1" and end <= len(content):
            left -= size
            while position + 16 <= end:
                number = int.from_bytes(content[position : position + 2], "little")
                size = int.from_bytes(content[position + 8 : position + 16], "little")
                if left < 0 or (not number and size < 16):  # heaps that overlap; free space (number 0) less than its header
                    raise ValueError("a heap of strings in it is broken")
                position += 16 + (size + 7) // 8 * 8 if number else size
        heap = content.find(b"GCOL", heap + 4)


def _text(obj, name, size):
    """A string attribute of an object; None if there is none.  The attribute is looked at before it is read."""
    if name not in obj.attrs:
        return None
    attribute, is_string = obj.attrs.get_id(name), optional("h5py", EXTRA).check_string_dtype
    if attribute.shape != () or is_string(attribute.dtype) is None or attribute.dtype.itemsize > size:
        raise ValueError(f"attribute {name!r} of {obj.name!r:.80} is not a string")
    value = obj.attrs[name]
    return value.decode() if isinstance(value, bytes) else value


def _walk(h5, size):
    """``{path: {leaf: Variable}}`` of all groups with arrays, and ``{path: layer name}`` where Keras 3 put it."""
    h5py = optional("h5py", EXTRA)
    groups, labels, seen, waiting = {}, {}, set(), [("", h5)]
    while waiting:
        path, group = waiting.pop()
        own = path.removesuffix("vars").rstrip("/").removeprefix("model_weights/")
        own = own.replace("_layer_checkpoint_dependencies", "layers")  # the name in Keras 2.12 and 2.13
        if path.endswith("vars") and (label := _text(group, "name", size)) is not None:
            labels[own] = label[:_MOST_NAME]
        for key in reversed([*group]):  # so that what comes first is taken from the end of `waiting` first
            inner = f"{path}/{key}".lstrip("/")
            if len(inner) > _MOST_PATH:
                raise ValueError(f"a path in it has more than {_MOST_PATH} characters")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{inner!r:.80} is a link to another place, which is not followed")
            child = group[key]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                raise ValueError(f"{inner!r:.80} is a second link to one object")
            seen.add(address)
            if isinstance(child, h5py.Group) and inner not in ("optimizer", "optimizer_weights"):
                waiting.append((inner, child))
            elif isinstance(child, h5py.Dataset) and child.shape is not None:
                groups.setdefault(own, {})[key] = _variable(child, size)
    return groups, labels


def _variable(dataset, size):
    """The `Variable` of a dataset in a file of `size` bytes."""

    def read():
        h5py = optional("h5py", EXTRA)
        plist = dataset.id.get_create_plist()
        if plist.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or plist.get_external_count():
            raise ValueError(f"{dataset.name!r:.80} is external, virtual, chunked or compressed, which Keras' arrays are not; "
                             "if you trust the file, h5repack -l CONTI -f NONE mends it")
        stored = min(dataset.id.get_storage_size(), size)  # the former is what the file says
        half = dataset.dtype == "V2" and _text(dataset, "dtype", size) == "bfloat16"
        check_size(f"{dataset.name!r:.80}", dataset.shape, checks.dtype("float16") if half else dataset.dtype, stored)
        return dataset[()].view(checks.dtype("bfloat16")) if half else dataset[()]

    return Variable(dataset.shape, read)


# --- which group is whose


def _named(groups, labels, config, older):
    """``{layer name: Entry}``: those that the config describes, then all other groups with a kernel of four axes."""
    found = {}
    for group, variables in groups.items():
        told = any(_GROUP.fullmatch(text) for text in (group.rpartition("/")[2], labels.get(group, "")))
        weights = entry(variables, group, told or any(leaf.startswith("depthwise_kernel") for leaf in variables))
        if weights is not None:
            found[group] = weights
    named = {}
    for names, group, layer in _described(config) if config is not None else ():
        weights = found.pop(_older_group(found, names) if older else group, Entry(None, None, group))
        own = layer["config"]
        if layer["class_name"] == "SeparableConv2D":
            own = {**{key: own[key] for key in _HALF if key in own}, "use_bias": False}
        named["/".join(names)] = weights._replace(depthwise=True, config=own)
        if len(named) > _MOST_LAYERS:
            raise ValueError(f"the model's config has more than {_MOST_LAYERS} depthwise layers")
    for group, weights in found.items():
        name = _older_label(group) if older else _label(group, labels)
        named[group if name in named else name] = weights
    return named


def _described(model, names=(), group=""):
    """(names from the outside in, group in the numbered layout, serialized layer) of each depthwise layer in a model's config."""
    config, numbers = model["config"], {}
    inner = config if isinstance(config, list) else config.get("layers")  # a list: Sequential, before Keras 2.2.3
    wrapped = isinstance(config, dict) and isinstance(config.get("layer"), dict)  # TimeDistributed and the like
    for layer in [config["layer"]] if wrapped else inner if isinstance(inner, list) else []:
        class_name, config = (layer.get("class_name"), layer.get("config")) if isinstance(layer, dict) else (None, None)
        if not isinstance(class_name, str) or not isinstance(config, dict | list):
            continue  # a custom model's config has what it likes under these names
        name = config.get("name") if isinstance(config, dict) else layer.get("name")
        name = name[:_MOST_NAME] if isinstance(name, str) else ""
        stem = checks.snake_case(class_name[:_MOST_NAME])
        numbers[stem] = number = numbers.get(stem, -1) + 1
        place = f"{group}/layer" if wrapped else f"{group}/layers/{stem}_{number}" if number else f"{group}/layers/{stem}"
        if class_name in _CLASSES and isinstance(config, dict):
            yield (*names, name), place.lstrip("/"), layer
        else:
            yield from _described(layer, (*names, name), place)


def _older_group(found, names):
    """The group of a layer in the older layout: in that of the outermost name, the one whose path ends most like the names."""
    inside = [group for group in found if f"{group}/".startswith(f"{names[0]}/")]
    wanted = "/".join(names).split("/")[::-1]

    def alike(group):
        return len(os.path.commonprefix([group.split("/")[::-1], wanted]))

    best = max(map(alike, inside), default=0)
    closest = inside if len(inside) == 1 else [group for group in inside if best and alike(group) == best]
    return closest[0] if len(closest) == 1 else None


def _label(group, labels):
    """layers/functional/layers/depthwise_conv2d as block/dw_1, as far as the file has names."""
    parts = group.split("/")
    places = ["/".join(parts[: index + 1]) for index in range(len(parts))]
    return "/".join(labels.get(place) or part for place, part in zip(places, parts, strict=True) if part != "layers")


def _older_label(group):
    """dw_1/dw_1 and dw_1/sequential/dw_1 as dw_1, block/block/dw_1 as block/dw_1."""
    first, *rest = group.split("/")
    rest = rest[1:] if rest[:1] == [first] else rest
    return first if not rest or rest[-1] == first else "/".join((first, *rest))
