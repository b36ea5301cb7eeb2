"""Files of weights: those that real Keras 2 and 3 wrote, our own in all formats, and hostile ones.

tests/data/keras_files.zip was recorded by tests/keras/record_files.py, torch_depthwise.npz by record_torch.py.  The hostile files
are made here and read in one process with little memory to spare, so that an allocation that a file asks for ends it.
"""

import doctest
import io
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest

import dwconv
from dwconv import _weight_files

h5py = pytest.importorskip("h5py")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

DATA = pathlib.Path(__file__).parent / "data"
NAMES = ["dw_1", "dw_2", "block/dw_1", "block/inner/depthwise", "sep", "frames/dw"]  # of record_files.py's model
SUFFIXES = (".npz", ".safetensors", ".weights.h5")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder with the files of real Keras."""
    folder = tmp_path_factory.mktemp("keras")
    with zipfile.ZipFile(DATA / "keras_files.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def activations(recorded):
    with np.load(recorded / "activations.npz") as file:
        return dict(file)


def some_layer(dtype="float32", **options):
    layer = dwconv.DepthwiseConv2D(3, depth_multiplier=2, dtype=dtype, name="one", **options)
    layer.build((None, None, None, 3))
    return filled(layer)


def filled(layer):
    layer.set_weights([weights_by_formula(weight.shape, index) for index, weight in enumerate(layer.weights)])
    return layer


def weights_by_formula(shape, index):
    """What record_files.py filled its models with."""
    size = int(np.prod(shape))
    return (((np.arange(size, dtype=np.int64) * 7919 + index * 104729) % 257 - 128) / 256).reshape(shape).astype(np.float32)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * abs(wanted).max())


def assert_same(layer, other):
    for a, b in zip(layer.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


# --- real Keras' files


@pytest.mark.parametrize("file", ["keras3.keras", "keras3.h5", "keras2.keras", "keras2.h5"])
def test_a_model_of_keras(file, recorded, activations):
    """Every depthwise layer of a MobileNet-style model gives the activations that Keras computed."""
    layers = dwconv.load_keras_layers(recorded / file)
    assert list(layers) == NAMES
    for name, layer in layers.items():
        inputs, outputs = (activations[f"{file[:6]}/{name}/{what}"] for what in ("inputs", "outputs"))
        got = layer(inputs)
        assert got.shape == outputs.shape
        assert abs(outputs).max() > 0.01
        close(got, outputs)
    assert [layers[name].strides for name in NAMES] == [(1, 1), (2, 2), (1, 1), (1, 1), (2, 2), (1, 1)]
    assert (layers["block/dw_1"].name, layers["block/dw_1"].dilation_rate) == ("dw_1", (1, 2))
    assert not layers["sep"].use_bias
    assert layers["frames/dw"].losses


@pytest.mark.parametrize(("file", "names"), [
    ("keras3.weights.h5", ["dw_1", "dw_2", "block/dw_1", "block/inner/depthwise", "sep", "frames/dw"]),
    ("keras2_weights_only.h5", ["dw_1", "dw_2", "block/dw_1", "block/depthwise", "sep", "frames"]),
    ("keras2.weights.h5", ["depthwise_conv2d", "depthwise_conv2d_1", "functional/depthwise_conv2d",
                           "functional/sequential/depthwise_conv2d", "separable_conv2d", "time_distributed/layer"]),
])
def test_weights_alone(file, names, recorded, activations):
    """A file without configs: into layers that have the geometry; and as layers with the default one, with a warning."""
    models = dwconv.load_keras_layers(recorded / f"{file[:6]}.keras")
    for name, (known, model) in zip(names, models.items(), strict=True):
        layer = dwconv.DepthwiseConv2D.from_config(model.get_config())
        layer.load_weights(recorded / file, name=name)
        close(layer(activations[f"{file[:6]}/{known}/inputs"]), activations[f"{file[:6]}/{known}/outputs"])
    with pytest.warns(UserWarning, match=r"does not describe .*strides, padding, dilation_rate and activation are the defaults"):
        layers = dwconv.load_keras_layers(recorded / file)
    wrapped = {"frames/dw", "time_distributed/layer"}  # whose group does not tell its class
    assert list(layers) == [name for name in (sorted(names) if "only" in file else names) if name not in wrapped]
    for name, model in zip(names, models.values(), strict=True):
        if name not in wrapped:
            assert_same(layers[name], model)
            assert layers[name].strides == (1, 1)


def test_single_layers(recorded, activations):
    layer = dwconv.DepthwiseConv2D(3, depth_multiplier=2)
    layer.load_weights(recorded / "single.weights.h5")
    assert_same(layer, some_layer())
    x = weights_by_formula((1, 5, 6, 3), 2) * 4
    close(layer(x), activations["single/outputs"])


def test_bfloat16(recorded):
    pytest.importorskip("ml_dtypes")
    (layer,) = dwconv.load_keras_layers(recorded / "single_bfloat16.keras").values()
    assert layer.dtype == "bfloat16"
    assert_same(layer, some_layer("bfloat16"))


def test_layout_is_that_of_keras(recorded, tmp_path):
    """A .weights.h5 of ours has the arrays of Keras' own, where and as it has them (compare_files.py has Keras read it)."""
    some_layer().save_weights(tmp_path / "ours.weights.h5")

    def content(path):
        items = {}
        with h5py.File(path) as file:
            file.visititems(items.__setitem__)
            arrays = {name: (item.dtype, item[()].tolist()) for name, item in items.items() if isinstance(item, h5py.Dataset)}
            return arrays, dict(file["layers/depthwise_conv2d/vars"].attrs)

    assert content(tmp_path / "ours.weights.h5") == content(recorded / "single.weights.h5")


def edited(recorded, name, target, change):
    """A copy of a recorded HDF5 file, changed."""
    target.write_bytes((recorded / name).read_bytes())
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def test_older_layouts(recorded, tmp_path):
    """As documented, since no Keras that old runs here: a Sequential's config as a list, names of TensorFlow 1, Keras 2.12."""

    def listed(file):
        model = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": model["config"]["layers"]})
        file.move("model_weights/dw_2/dw_2", "model_weights/dw_2/dw_2_1")

    layers = dwconv.load_keras_layers(edited(recorded, "keras2.h5", tmp_path / "old.h5", listed))
    wanted = dwconv.load_keras_layers(recorded / "keras2.h5")
    assert list(layers) == NAMES
    for name in NAMES:
        assert_same(layers[name], wanted[name])

    def renamed(file):
        file.move("layers", "_layer_checkpoint_dependencies")

    old = edited(recorded, "keras2.weights.h5", tmp_path / "old.weights.h5", renamed)
    layer = dwconv.DepthwiseConv2D(3, depth_multiplier=2)
    layer.load_weights(old, "depthwise_conv2d_1")
    assert_same(layer, wanted["dw_2"])


def archive_of(recorded, target, change):
    """keras3.keras with another config."""
    with zipfile.ZipFile(recorded / "keras3.keras") as source, zipfile.ZipFile(target, "w") as archive:
        config = json.loads(source.read("config.json"))
        archive.writestr("config.json", json.dumps(change(config) or config))
        archive.writestr("model.weights.h5", source.read("model.weights.h5"))
    return target


def layer_config(config, name):
    return next(layer["config"] for layer in config["config"]["layers"] if layer["config"]["name"] == name)


def test_custom_objects(recorded, tmp_path):
    """Whatever a model has besides its depthwise layers is passed over; what these name must be known."""

    def custom(config):
        layer_config(config, "dw_2")["activation"] = "mine>double"
        config["config"]["layers"] += [
            {"module": "os", "class_name": "system", "config": {"name": "a", "command": "touch canary"}, "registered_name": "x"},
            {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "b", "function": {"class_name": "__lambda__"}}},
            {"class_name": "Dense", "config": {"name": "c", "layers": [64, {"class_name": 3}, None]}}, 7, {"config": []}]

    path = archive_of(recorded, tmp_path / "custom.keras", custom)
    with pytest.raises(ValueError, match=r"custom\.keras.*layer 'dw_2'.*mine>double"):
        dwconv.load_keras_layers(path)
    with dwconv.custom_object_scope({"mine>double": lambda x: 2 * x}):
        assert list(dwconv.load_keras_layers(path)) == NAMES
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(("change", "message"), [
    (lambda config: layer_config(config, "dw_2").update(dilation_rate=[2, 2]), r"layer 'dw_2': A stride above 1 with a dilation"),
    (lambda config: layer_config(config, "dw_2").update(kernel_size=[3, 4]), r"kernel of shape \(3, 3, 6, 2\), .*\(3, 4, 6, 2\)"),
    (lambda config: layer_config(config, "dw_1").update(use_bias=True), r"no bias, .* a bias of shape \(4,\)"),
    (lambda config: layer_config(config, "dw_2").update(activation={"class_name": "__lambda__", "config": {}}), "layer 'dw_2'"),
    (lambda config: config["config"]["layers"].extend(
        {"class_name": "DepthwiseConv2D", "config": {"name": str(index)}} for index in range(2000)), "more than 2000 depthwise"),
    (lambda config: config["config"]["layers"].append(
        {"class_name": "DepthwiseConv2D", "config": {"name": "more", "kernel_size": 3}}), "layer 'more' and has no weights"),
])
def test_layers_that_are_refused(change, message, recorded, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        dwconv.load_keras_layers(archive_of(recorded, tmp_path / "odd.keras", lambda config: change(config) and None))
    assert len(str(error.value)) < 500


def test_a_custom_model(recorded, tmp_path):
    """A subclassed model's config does not list its layers: those that the groups tell have the default geometry."""
    path = archive_of(recorded, tmp_path / "custom.keras", lambda _: {"class_name": "Mine", "config": {"layers": 3}})
    with pytest.warns(UserWarning, match="does not describe"):
        layers = dwconv.load_keras_layers(path)
    assert {*layers} == {*NAMES} - {"frames/dw"}


# --- which layer of a file


def test_names(recorded):
    layer = dwconv.DepthwiseConv2D(3, depth_multiplier=2)
    with pytest.raises(ValueError, match=r"one of 6 layers is to be named; kernels are 'dw_1'.* and 2 more") as error:
        layer.load_weights(recorded / "keras3.keras")
    assert len(str(error.value)) < 500
    with pytest.raises(ValueError, match=r"the file has no layer '\.\./dw_1'; kernels are 'dw_1' \(3, 3, 4, 1\)"):
        layer.load_weights(recorded / "keras3.keras", name="../dw_1")
    assert not layer.built
    layer.load_weights(recorded / "keras3.keras", name="dw_2")
    by_group = dwconv.DepthwiseConv2D(3, depth_multiplier=2)
    by_group.load_weights(recorded / "keras3.keras", name="layers/depthwise_conv2d_1")
    assert_same(layer, by_group)


def test_all_or_nothing(recorded):
    layer = some_layer()
    for name, message in [("dw_1", r"kernel of shape \(3, 3, 4, 1\), layer 'one' one of \(3, 3, 3, 2\)"),
                          ("pw_1", r"kernel of shape \(1, 1, 4, 6\), layer 'one' one of \(3, 3, 3, 2\)")]:
        with pytest.raises(ValueError, match=message):
            layer.load_weights(recorded / "keras3.keras", name)
    without = some_layer(use_bias=False)
    with pytest.raises(ValueError, match=r"bias of shape \(6,\), layer 'one' no bias"):
        without.load_weights(recorded / "single.weights.h5")
    assert_same(layer, some_layer())
    unbuilt = dwconv.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    with pytest.raises(ValueError, match="bias"):
        unbuilt.load_weights(recorded / "single.weights.h5")
    assert not unbuilt.built


def test_files_of_others(tmp_path):
    """np.savez by position, several layers by prefix, compressed; big-endian and Fortran order; with arrays of others between."""
    layer = some_layer()
    kernel, bias = layer.get_weights()
    np.savez(tmp_path / "position.npz", kernel, bias)
    np.savez_compressed(tmp_path / "prefix.npz", **{
        "a/kernel": np.asfortranarray(kernel), "a/bias": bias.astype(">f8"), "b.depthwise_kernel": kernel[..., :1], "steps": 3,
        "names": np.array(["x"])})
    safetensors_numpy.save_file({"net.a.kernel": kernel, "net.a.bias": bias, "head.weight": bias}, tmp_path / "a.safetensors")
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["vars/0"], file["vars/1"] = kernel.astype(">f4"), bias.astype(">f8")
    for file, name in [("position.npz", None), ("prefix.npz", "a"), ("a.safetensors", None), ("a.safetensors", "net.a"),
                       ("big.h5", None)]:
        other = dwconv.DepthwiseConv2D(3, depth_multiplier=2)
        other.load_weights(tmp_path / file, name)
        assert_same(other, layer)
    with pytest.raises(ValueError, match=r"one of 2 layers is to be named; kernels are 'a' \(3, 3, 3, 2\), 'b' \(3, 3, 3, 1\)"):
        layer.load_weights(tmp_path / "prefix.npz")
    with pytest.raises(ValueError, match=r"file of arrays \(npz\), not Keras': `load_weights` of a layer reads it"):
        dwconv.load_keras_layers(tmp_path / "prefix.npz")
    np.savez(tmp_path / "names.npz", w=kernel, weight=kernel.transpose(2, 3, 0, 1))
    with pytest.raises(ValueError, match=r"no kernel of four axes that is called depthwise_kernel, .*from_torch"):
        layer.load_weights(tmp_path / "names.npz")
    missing = str(tmp_path / "missing.npz")
    with pytest.raises(FileNotFoundError) as error:
        layer.load_weights(missing)
    assert error.value.filename == missing


# --- our own files


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_round_trip(suffix, dtype, use_bias, tmp_path):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    layer = some_layer(dtype, use_bias=use_bias)
    layer.kernel = np.asfortranarray(layer.kernel)[::-1]  # safetensors#825
    layer.save_weights(tmp_path / f"w{suffix}")
    for other in (dwconv.DepthwiseConv2D(3, depth_multiplier=2, dtype=dtype, use_bias=use_bias, data_format="channels_first"),
                  some_layer(dtype, use_bias=use_bias)):
        other.load_weights(tmp_path / f"w{suffix}")
        assert_same(other, layer)
    assert os.listdir(tmp_path) == [f"w{suffix}"]


def test_saving(tmp_path, monkeypatch):
    layer, path = some_layer(), tmp_path / "w.npz"
    layer.save_weights(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"overwrite is False: .*w\.npz"):
        layer.save_weights(path, overwrite=False)
    os.symlink(path, tmp_path / "link.npz")
    layer.kernel *= 2
    layer.save_weights(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert path.read_bytes() != before
    for bad in ("w.h5", "w.keras", "w", ".", ""):
        with pytest.raises(ValueError, match=r"ends in \.npz, \.safetensors, \.weights\.h5"):
            layer.save_weights(bad)
    with pytest.raises(ValueError, match="no weights yet"):
        dwconv.DepthwiseConv2D(3).save_weights(path)
    with pytest.raises(FileNotFoundError, match=r"missing/w\.npz"):
        layer.save_weights(tmp_path / "missing" / "w.npz")

    def fails(file, name, arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setitem(_weight_files._WRITERS, ".npz", fails)
    with pytest.raises(OSError, match=r"No space left on device: .*w\.npz"):
        layer.save_weights(path)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["link.npz", "w.npz"]


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = some_layer()
    for path in ("-.npz", "a b.npz", "é\u4e2d.safetensors", b"bytes.weights.h5", pathlib.Path("p.weights.h5"),
                 os.fsencode(tmp_path / "b.safetensors")):
        layer.save_weights(path)
        layer.load_weights(path)
    for wrong in (3, None, io.BytesIO(), ["x"]):
        with pytest.raises(TypeError, match=r"os\.PathLike"):
            layer.load_weights(wrong)
        with pytest.raises(TypeError, match=r"os\.PathLike"):
            layer.save_weights(wrong)
    os.mkfifo("fifo.npz")
    os.symlink("loop.npz", "loop.npz")
    for path, kind, message in [("x" * 5000, OSError, "File name too long"), ("missing.h5", FileNotFoundError, "missing.h5"),
                                ("a\0b.npz", ValueError, "null"), (".", ValueError, "not a regular file"),
                                ("fifo.npz", ValueError, "not a regular file"), ("loop.npz", OSError, "symbolic links")]:
        with pytest.raises(kind, match=message) as error:
            layer.load_weights(path)
        assert len(str(error.value)) < 500
    assert_same(layer, some_layer())


@pytest.mark.parametrize(("module", "suffix", "extra"), [
    ("h5py", ".weights.h5", "keras-files"), ("safetensors", ".safetensors", "safetensors")])
def test_packages_are_optional(module, suffix, extra, tmp_path, monkeypatch):
    layer = some_layer()
    layer.save_weights(tmp_path / f"w{suffix}")
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    for function in (layer.load_weights, layer.save_weights):
        with pytest.raises(ImportError, match=rf'needs {module}.*: pip install "dwconv\[{extra}\]"'):
            function(tmp_path / f"w{suffix}")
    layer.save_weights(tmp_path / "w.npz")
    layer.load_weights(tmp_path / "w.npz")


# --- hostile files

KERNEL = weights_by_formula((3, 3, 3, 2), 0)  # alone, in files for layers without a bias


def npy(array, **header):
    """An .npy whose header says what it likes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {**np.lib.format.header_data_from_array_1_0(array), **header})
    return file.getvalue() + array.tobytes()


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in members:
            archive.writestr(name, data)


def tensors(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def hdf5(change):
    """Writes a good file and changes its group layers/depthwise_conv2d/vars."""

    def make(path):
        some_layer(use_bias=False).save_weights(f"{path}.weights.h5")
        os.replace(f"{path}.weights.h5", path)
        with h5py.File(path, "r+") as file:
            change(file, file["layers/depthwise_conv2d/vars"])

    return make


def replaced(**options):
    """The kernel replaced by a dataset with those options."""

    def change(file, group):
        del group["0"]
        group.create_dataset("0", **options)

    return hdf5(change)


def linked(link):
    def change(file, group):
        del group["0"]
        group["0"] = link

    return hdf5(change)


def virtual(file, group):
    del group["0"]
    layout = h5py.VirtualLayout((3, 3, 3, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (3, 3, 3, 2))
    group.create_virtual_dataset("0", layout)


def unknown_filter(file, group):
    del group["0"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((3, 3, 3, 2))
    plist.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(group.id, b"0", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((3, 3, 3, 2)), plist).write(
        h5py.h5s.ALL, h5py.h5s.ALL, KERNEL)


def enlarged(content):
    """What is declared and what is said to be stored, both alike."""
    for old, new in ((1031, 2**36), (3 * 3 * 1031 * 2 * 4, 3 * 3 * 2**36 * 2 * 4)):
        assert struct.pack("<Q", old) in content
        content = content.replace(struct.pack("<Q", old), struct.pack("<Q", new))
    return content


def endless_heap(path):
    hdf5(lambda file, group: None)(path)
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)


def bytes_of(make, change):
    """A file that `make` wrote, changed as bytes."""

    def made(path):
        make(path)
        path.write_bytes(change(path.read_bytes()))

    return made


def good_npz(path):
    zipped(path, [("kernel.npy", npy(KERNEL))])


def deep(path):
    zipped(path, [("config.json", '{"config":' * 10**5 + "1" + "}" * 10**5), ("model.weights.h5", b"")])


def pickled(path):
    class Canary:
        def __reduce__(self):
            return open, (str(path.parent / "canary"), "w")

    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([[[[Canary()]]]], dtype=object), allow_pickle=True)
    zipped(path, [("kernel.npy", file.getvalue())])


def npz_version(version, padding):
    def make(path):
        text = str({"descr": "<f4", "fortran_order": False, "shape": (3, 3, 3, 2)}).encode() + b" " * padding + b"\n"
        zipped(path, [("kernel.npy", b"\x93NUMPY" + bytes(version) + struct.pack("<I", len(text)) + text + KERNEL.tobytes())])

    return make


def tensor(**changes):
    size = KERNEL.nbytes
    return {"kernel": {"dtype": "F32", "shape": [3, 3, 3, 2], "data_offsets": [0, size]} | changes}


def keras(config=None, weights=b""):
    return lambda path: zipped(path, [("config.json", config if isinstance(config, str) else json.dumps(config)),
                                      ("model.weights.h5", weights)])


HOSTILE = {  # name: (how it is made, what the error says)
    "empty": (lambda path: path.write_bytes(b""), "neither HDF5 nor a zip"),
    "text": (lambda path: path.write_text("kernel: 1, bias: 2"), "neither HDF5 nor a zip"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04\x95cbuiltins\nexec\n"), "neither HDF5 nor a zip"),
    # HDF5
    "h5 of 100 bytes": (bytes_of(hdf5(lambda *_: None), lambda content: content[:100]), "file"),
    "h5 of half its bytes": (bytes_of(hdf5(lambda *_: None), lambda content: content[: len(content) // 2]), "truncated"),
    "h5 of zeros": (bytes_of(hdf5(lambda *_: None), lambda content: content[:100] + bytes(len(content) - 100)), "open file"),
    "external link": (linked(h5py.ExternalLink("other.h5", "/kernel")), "'.*vars/0' is a link to another place"),
    "soft link": (linked(h5py.SoftLink("/layers")), "'.*vars/0' is a link to another place"),
    "soft loop": (linked(h5py.SoftLink("/layers/depthwise_conv2d/vars/0")), "'.*vars/0' is a link to another place"),
    "hard loop": (hdf5(lambda file, group: group.__setitem__("x", file["layers"])), "is a second link to one object"),
    "external storage": (replaced(shape=(3, 3, 3, 2), dtype="f4", external=[("other.h5", 0, 216)]), "is external, virtual"),
    "virtual": (hdf5(virtual), "is external, virtual"),
    "shape bomb": (replaced(shape=(3, 3, 2**34, 2), dtype="f4"), r"declares shape \(3, 3, 17179869184, 2\), \d+ bytes"),
    "layout bomb": (bytes_of(replaced(data=np.ones((3, 3, 1031, 2), "f4")), enlarged), "file corruption|and stores"),
    "never written": (replaced(shape=(3, 3, 3, 2), dtype="f4"), "216 bytes, and stores 0"),
    "compressed": (replaced(data=np.zeros((3, 3, 2**16, 2), "f4"), compression="gzip"), "chunked or compressed"),
    "unknown filter": (hdf5(unknown_filter), "is external, virtual, chunked or compressed"),
    "strings": (replaced(data=np.full((3, 3, 3, 2), "x", dtype=object), dtype=h5py.string_dtype()), "has dtype object"),
    "compound": (replaced(shape=(3, 3, 3, 2), dtype=[("a", "f4")], data=np.zeros((3, 3, 3, 2), [("a", "f4")])), "has dtype"),
    "complex": (replaced(data=np.zeros((3, 3, 3, 2), "c8")), "has dtype complex64, which is no real number"),
    "scalar": (replaced(data=1.0), "no kernel of four axes"),
    "no data": (replaced(data=h5py.Empty("f4")), "no kernel of four axes"),
    "name of numbers": (hdf5(lambda file, group: group.attrs.__setitem__("name", np.zeros(3))), "attribute 'name' .*string"),
    "name of one": (hdf5(lambda file, group: group.attrs.__setitem__("name", 3)), "attribute 'name' .*string"),
    "endless heap": (endless_heap, "heap of strings"),
    "long path": (hdf5(lambda file, group: group.create_group("x" * 3000)), "more than 2000 characters"),
    "config is a list": (hdf5(lambda file, group: file.attrs.__setitem__("model_config", "[]")), "not one of Keras"),
    # zip
    "npz of half its bytes": (bytes_of(good_npz, lambda content: content[: len(content) // 2]), "zip"),
    "npz with a changed byte": (bytes_of(lambda path: zipped(path, [("kernel.npy", npy(KERNEL))], zipfile.ZIP_STORED),
                                         lambda content: content[:250] + b"\xff" + content[251:]), "CRC"),
    "npz bomb": (lambda path: zipped(path, [("kernel.npy", npy(np.zeros((3, 3, 2**18, 2), "f4")))]), "declares 18874496 bytes"),
    "bzip2": (lambda path: zipped(path, [("kernel.npy", npy(KERNEL))], zipfile.ZIP_BZIP2), "compressed by method 12"),
    "outside": (lambda path: zipped(path, [("../kernel.npy", npy(KERNEL))]), r"member named '\.\./kernel\.npy'"),
    "absolute": (lambda path: zipped(path, [("/kernel.npy", npy(KERNEL))]), "member named '/kernel.npy'"),
    "twice": (lambda path: zipped(path, [("kernel.npy", npy(KERNEL))] * 2), "two members of the zip have one name"),
    "encrypted": (bytes_of(good_npz, lambda content: content.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")),
                  "encrypted"),
    "pickled": (pickled, "has dtype object"),
    "header declares more": (lambda path: zipped(path, [("kernel.npy", npy(KERNEL, shape=(3, 3, 2**40, 2)))]), "and stores 216"),
    "header declares less": (lambda path: zipped(path, [("kernel.npy", npy(KERNEL, shape=(3, 3, 1, 2)))]), "and stores 216"),
    "negative shape": (lambda path: zipped(path, [("kernel.npy", npy(KERNEL, shape=(-3, -3, 3, 2)))]), "declares shape"),
    "npy 3.0": (npz_version((3, 0), 0), r"version \(3, 0\) of the \.npy format"),
    "long header": (npz_version((2, 0), 10**6), "large"),
    "no npy": (lambda path: zipped(path, [("kernel.npy", b"x" * 300)]), "magic"),
    "no weights": (lambda path: zipped(path, [("config.json", "{}"), ("metadata.json", "{}")]), "without model.weights.h5"),
    "broken config": (keras('{"config": '), "JSONDecodeError|Expecting value"),
    "deep config": (deep, "RecursionError"),
    "config bomb": (keras('{"config": 1' + " " * 2**25 + "}"), "declares"),
    "weights bomb": (keras({"config": {}}, bytes(2**25)), "declares"),
    "weights are not HDF5": (keras({"config": {}}, b"no"), "signature"),
    # safetensors
    "header of 2**63": (lambda path: tensors(path, tensor(), length=2**63), "SafetensorError.*header too large"),
    "header beyond the file": (lambda path: tensors(path, tensor(), length=10**6), "SafetensorError"),
    "offsets outside": (lambda path: tensors(path, tensor(data_offsets=[0, 2**40]), KERNEL.tobytes()), "SafetensorError"),
    "offsets overlap": (lambda path: tensors(path, {**tensor(), "b": {"dtype": "F32", "shape": [6], "data_offsets": [8, 32]}},
                                             KERNEL.tobytes()), "SafetensorError"),
    "wrong product": (lambda path: tensors(path, tensor(shape=[3, 3, 2**40, 2]), KERNEL.tobytes()), "SafetensorError"),
    "complex tensor": (lambda path: tensors(path, tensor(dtype="C64", data_offsets=[0, 432]), bytes(432)), "real"),
    "unknown dtype": (lambda path: tensors(path, tensor(dtype="F8_E4M3", data_offsets=[0, 54]), bytes(54)), "F8|float8"),
}

READ_ALL = """
import json, resource, sys
import dwconv

folder, names = sys.argv[1], json.loads(sys.argv[2])
answers = {}

def attempt(name):
    layer = dwconv.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    try:
        layer.load_weights(f"{folder}/{name}")
    except Exception as error:
        assert not layer.built
        return type(error).__name__, str(error)

for suffix in (".npz", ".safetensors", ".weights.h5"):  # what is imported now needs no memory later
    assert attempt("good" + suffix) is None
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 2**26
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(json.dumps({name: attempt(name) for name in names}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """{name: [type of the error, text]} of all hostile files, read with 64 MiB to spare."""
    folder = tmp_path_factory.mktemp("hostile")
    with h5py.File(folder / "other.h5", "w") as file:
        file["kernel"] = KERNEL
    for name, (make, _) in HOSTILE.items():
        make(folder / name)
    for suffix in SUFFIXES:
        some_layer(use_bias=False).save_weights(folder / f"good{suffix}")
    files = {name: (folder / name).stat().st_mtime_ns for name in os.listdir(folder)}
    done = subprocess.run([sys.executable, "-c", READ_ALL, folder, json.dumps(list(HOSTILE))],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {name: (folder / name).stat().st_mtime_ns for name in os.listdir(folder)} == files  # nothing written, no canary
    return json.loads(done.stdout)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the limit on memory is Linux'")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, answers):
    kind, text = answers[name]
    assert kind in ("ValueError", "OSError")
    assert len(text) < 500
    assert repr(name) in text or f"{name}'" in text
    assert re.search(HOSTILE[name][1], text), text


def test_a_bomb_that_lies_about_its_size(tmp_path):
    """A member that declares the bytes of a kernel and unpacks to 2**27 more: as many are unpacked as it declares."""
    path, content = tmp_path / "bomb.npz", npy(KERNEL)
    zipped(path, [("kernel.npy", content + bytes(2**27))])
    packed = path.read_bytes()
    for old, new in ((len(content) + 2**27, len(content)), (zlib.crc32(content + bytes(2**27)), zlib.crc32(content))):
        packed = packed.replace(old.to_bytes(4, "little"), new.to_bytes(4, "little"))
    path.write_bytes(packed)
    layer = dwconv.DepthwiseConv2D(KERNEL.shape[:2], depth_multiplier=KERNEL.shape[3], use_bias=False)
    tracemalloc.start()
    try:
        layer.load_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert np.array_equal(layer.depthwise_kernel, KERNEL)


def test_broken_bytes(recorded, tmp_path):
    """Bytes of real files changed at random give a ValueError, an OSError or weights, and nothing else."""
    draw = np.random.default_rng(5)
    errors = []
    for name in ("keras3.keras", "keras2.h5", "single.weights.h5"):
        content = (recorded / name).read_bytes()
        for _ in range(25):
            broken = np.frombuffer(content, np.uint8).copy()
            broken[draw.integers(0, len(broken), 20)] = draw.integers(0, 256, 20)
            (tmp_path / "broken").write_bytes(broken.tobytes())
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    dwconv.load_keras_layers(tmp_path / "broken")
            except (ValueError, OSError) as error:
                errors.append(str(error))
    assert len(errors) > 20
    assert max(map(len, errors)) < 500


# --- arrays of PyTorch and ONNX


def test_kernel_from_torch():
    with np.load(DATA / "torch_depthwise.npz") as file:
        golden = dict(file)
    for weight, outputs in (("weight", "torch"), ("onnx_weight", "onnx")):
        kernel = dwconv.kernel_from_torch(golden[weight], groups=4)
        assert kernel.shape == (3, 2, 4, 3)
        options = {"strides": (2, 1), "padding": (1, 0), "data_format": "channels_first"}
        close(dwconv.depthwise_conv2d(golden["x"], kernel, golden["bias"], **options), golden[outputs])
    for shape, groups in (((4, 2, 3, 3), 4), ((5, 1, 3, 3), 2), ((3, 3), 1), ((4, 1, 3, 3), 0)):
        with pytest.raises(ValueError, match="groups"):
            dwconv.kernel_from_torch(np.ones(shape), groups)
    with pytest.raises(TypeError):
        dwconv.kernel_from_torch(np.ones((4, 1, 3, 3)), 2.5)


def test_examples_in_docstrings():
    assert doctest.testmod(_weight_files).attempted > 3
    assert not doctest.testmod(_weight_files).failed
