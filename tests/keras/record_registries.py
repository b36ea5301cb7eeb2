"""Write tests/data/keras_registries.json: what real Keras answers to the questions of tests/test_*.py.

Run it in the environment of setup-keras.sh; it needs nothing of dwconv. The file holds numbers (float32 as the shortest
decimals that give the same float32), dicts that Keras writes, and for every name the class that Keras finds or the
exception that it raises. Everything is seeded: a second run writes the same file.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its order of summation depends on the machine

import keras
import numpy as np
import tensorflow as tf

TARGET = pathlib.Path(__file__).parents[1] / "data" / "keras_registries.json"
FAMILIES = ("initializers", "constraints", "regularizers", "activations")
RANDOM = np.random.default_rng(20)
KERNEL = RANDOM.normal(size=(3, 2, 3, 2)).astype(np.float32)
MATRIX = RANDOM.normal(size=(3, 4)).astype(np.float32)
POINTS = np.array([-30, -8, -3, -1.5, -1, -0.75, -0.5, -0.1, 0, 0.1, 0.5, 0.75, 1, 1.5, 3, 6, 8, 30], np.float32)
ROWS = RANDOM.normal(size=(3, 4)).astype(np.float32)

INITIALIZERS = [
    ("RandomUniform", {}),
    ("RandomUniform", {"minval": -1.0, "maxval": 3.0}),
    ("GlorotUniform", {}),
    ("GlorotUniform", {"input_axes": [0, 1], "output_axes": [0, 1, 3]}),
    ("HeUniform", {}),
    ("LecunUniform", {}),
    ("VarianceScaling", {"scale": 2.0, "mode": "fan_out", "distribution": "uniform"}),
    ("RandomNormal", {}),
    ("RandomNormal", {"mean": 1.0, "stddev": 2.0}),
    ("TruncatedNormal", {}),
    ("GlorotNormal", {}),
    ("HeNormal", {}),
    ("LecunNormal", {}),
    ("VarianceScaling", {"scale": 0.5, "mode": "fan_avg", "distribution": "untruncated_normal"}),
    ("Orthogonal", {"gain": 1.5}),
]
CONSTRAINTS = [
    ("MaxNorm", {}),
    ("MaxNorm", {"max_value": 0.5, "axis": [0, 1]}),
    ("MinMaxNorm", {"min_value": 0.5, "max_value": 0.9, "rate": 0.25, "axis": [0, 1]}),
    ("UnitNorm", {"axis": 2}),
    ("NonNeg", {}),
]
REGULARIZERS = [
    ("L1", {}),
    ("L1", {"l1": 0.3}),
    ("L2", {"l2": 0.7}),
    ("L1L2", {"l1": 0.1, "l2": 0.2}),
    ("OrthogonalRegularizer", {"factor": 0.5}),
    ("OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}),
]
WITHOUT_ARGUMENTS = set(sys.modules["keras.src.activations"].ALL_OBJECTS_DICT) - {"swish", "hard_swish", "threshold"}
ACTIVATIONS = [
    *((name, {}) for name in sorted(WITHOUT_ARGUMENTS)),
    ("relu", {"negative_slope": 0.1, "max_value": 2.0, "threshold": -0.9}),
    ("relu", {"threshold": 0.6}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {"alpha": 0.5}),
    ("celu", {"alpha": 2.0}),
    ("gelu", {"approximate": True}),
    ("squareplus", {"b": 1}),
    ("threshold", {"threshold": 0.6, "default_value": -2.0}),
    ("softmax", {"axis": 0}),
]
OBJECTS = {  # what `serialize` is asked to write
    "initializers": [
        *((name, arguments | {"seed": 7}) for name, arguments in INITIALIZERS),
        ("Zeros", {}),
        ("Ones", {}),
        ("Constant", {"value": 0.5}),
        ("HeNormal", {}),
    ],
    "constraints": CONSTRAINTS,
    "regularizers": REGULARIZERS,
    "activations": [],
}
MORE_NAMES = {  # beside those of Keras' tables: names of Keras 2, and names that nobody has
    "initializers": ["GlorotUniformV2", "glorot_uniformV2", "nope", "keras.initializers.Zeros", "os.system", "ZEROS"],
    "constraints": ["maxnorm", "nonneg", "RadialConstraint", "nope", "MAX_NORM"],
    "regularizers": ["l1_l2", "nope", "L3"],
    "activations": ["LeakyReLU", "ReLU", "nope", "Relu", "os.system"],
}
DICTS = [  # (family, what `get` is given)
    ("initializers", {"class_name": "HeNormal", "config": {"seed": 3}}),
    ("initializers", {"module": "keras.initializers", "class_name": "Ones", "config": {}, "registered_name": None}),
    ("initializers", {"class_name": "HeNormal", "config": {"seed": 3, "nope": 1}}),
    ("initializers", {"class_name": "HeNormal", "config": {"seed": 3.5}}),
    ("initializers", {"class_name": "VarianceScaling", "config": {"mode": "nope"}}),
    ("initializers", {"class_name": "VarianceScaling", "config": {"scale": -1.0}}),
    ("initializers", {"class_name": "nope", "config": {}}),
    ("initializers", {"config": {}}),
    ("initializers", 3),
    ("constraints", {"class_name": "MaxNorm", "config": {"max_value": 3, "axis": 0}}),
    ("constraints", {"module": "os", "class_name": "system", "config": {}, "registered_name": None}),
    ("regularizers", {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.25}}),
    ("regularizers", {"class_name": "l2", "config": {"l2": 0.25}}),
    ("regularizers", {"class_name": "L2", "config": {"l2": -1.0}}),
    ("activations", {"class_name": "function", "module": "builtins", "config": "relu", "registered_name": "function"}),
    ("activations", {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}),
    ("activations", 3),
]


def plain(array):
    """Nested lists of the shortest decimals of float32 numbers; null for NaN."""
    array = np.asarray(array)
    if array.ndim:
        return [plain(part) for part in array]
    return float(str(array.astype(np.float32)[()])) if np.isfinite(array) else None


def with_gradient(function, x):
    """The value and the gradient of its sum weighted by 1, 2, 3, ... in order."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.convert_to_tensor(function(x))
        weights = tf.reshape(tf.range(1, tf.size(y) + 1, dtype=y.dtype), tf.shape(y))
        total = tf.reduce_sum(y * weights)
    return {"value": plain(y), "gradient": plain(tape.gradient(total, x))}


def answer(function, *args):
    """What comes back, by name: a class, a function, or the exception."""
    try:
        result = function(*args)
    except Exception as error:  # the type is what is recorded
        return {"raises": type(error).__name__}
    return {"gives": getattr(result, "__name__", type(result).__name__)}


def main():
    record = {"versions": {"keras": keras.__version__, "tensorflow": tf.__version__}}
    record["initializers"] = []
    cases = [((2, 3, 2, 3), 0, "float32"), ((3, 1, 5, 1), 2**31 + 7, "float32")]
    cases += [((1, 2, 3, 1), -5, dtype) for dtype in ("float64", "float16")]
    for name, arguments in INITIALIZERS:
        for shape, seed, dtype in cases:
            if (name, dtype) == ("Orthogonal", "float16"):
                continue  # TensorFlow has no QR for it
            values = np.asarray(getattr(keras.initializers, name)(seed=seed, **arguments)(shape, dtype=dtype))
            values = [float(v) for v in values.ravel()] if dtype == "float64" else plain(values.ravel())
            case = {"name": name, "arguments": arguments, "seed": seed, "shape": shape, "dtype": dtype}
            record["initializers"].append(case | {"values": values})
    generator = keras.random.SeedGenerator(11)
    initializer = keras.initializers.RandomUniform(seed=generator)
    record["seed_generator"] = {
        "serialized": keras.initializers.serialize(initializer),
        "draws": [plain(initializer((5,))) for _ in range(3)],
    }
    record["kernel"], record["matrix"], record["points"], record["rows"] = map(plain, (KERNEL, MATRIX, POINTS, ROWS))
    record["constraints"] = [
        {"name": name, "arguments": arguments, "value": plain(getattr(keras.constraints, name)(**arguments)(KERNEL))}
        for name, arguments in CONSTRAINTS
    ]
    record["regularizers"] = [
        {"name": name, "arguments": arguments}
        | with_gradient(getattr(keras.regularizers, name)(**arguments), MATRIX if "Orth" in name else KERNEL)
        for name, arguments in REGULARIZERS
    ]
    record["activations"] = []
    for name, arguments in ACTIVATIONS:
        x = ROWS if name in ("softmax", "log_softmax", "glu", "sparsemax") else POINTS
        function = getattr(keras.activations, name)
        case = {"name": name, "arguments": arguments, "input": "rows" if x is ROWS else "points"}
        record["activations"].append(case | with_gradient(lambda x, f=function, a=arguments: f(x, **a), x))
    record["serialized"] = {}
    for family in FAMILIES:
        module = getattr(keras, family)
        record["serialized"][family] = [
            {"name": name, "arguments": arguments, "dict": module.serialize(getattr(module, name)(**arguments))}
            for name, arguments in OBJECTS[family]
        ]
    layers = [keras.layers.ReLU(max_value=3.0), keras.layers.LeakyReLU(0.1), keras.layers.ELU(), keras.layers.Softmax()]
    record["serialized"]["layers"] = [keras.activations.serialize(layer) for layer in layers]
    record["names"] = {}
    for family in FAMILIES:
        table = sys.modules[f"keras.src.{family}"].ALL_OBJECTS_DICT
        names = sorted({*table, *MORE_NAMES[family]})
        record["names"][family] = {name: answer(getattr(keras, family).get, name) for name in names}
    record["dicts"] = [
        {"family": family, "identifier": identifier} | answer(getattr(keras, family).get, identifier)
        for family, identifier in DICTS
    ]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(record, indent=None, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    main()
