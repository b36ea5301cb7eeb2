"""Write tests/data/keras_layers.{json,npz}: what real Keras' DepthwiseConv2D answers to the questions of test_keras_golden.py.

Run it in the environment of setup-keras.sh; it needs nothing of dwconv.  The JSON holds arguments, configs, shapes, losses
and types of errors, the .npz all weights and outputs one after the other, float32 (16-bit ones too) or float64.  Cases are
drawn from a seed and inputs are given by a formula: a second run writes the same files.  The configs of Keras 2 are recorded
anew only where tf_keras is installed, and kept otherwise.  compare_layers.py uses the same cases.
"""

import json
import os
import pathlib
import random

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its order of summation depends on the machine

import numpy as np

TARGET = pathlib.Path(__file__).parents[1] / "data" / "keras_layers.json"
ACTIVATIONS = (
    None, None, None, "linear", "relu", "relu", "relu6", "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid",
    "hard_silu", "hard_tanh", "leaky_relu", "log_sigmoid", "log_softmax", "mish", "selu", "sigmoid", "silu", "soft_shrink",
    "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "swish", "tanh", "tanh_shrink",
)
UNIFORM = ("GlorotUniform", "HeUniform", "LecunUniform", "RandomUniform")
NORMAL = ("GlorotNormal", "HeNormal", "LecunNormal", "RandomNormal", "TruncatedNormal", "Orthogonal")
REGULARIZERS = (None, None, "l1", "l2", {"class_name": "L1L2", "config": {"l1": 0.125, "l2": 0.25}})
CONSTRAINTS = (None, None, "non_neg", {"class_name": "MaxNorm", "config": {"max_value": 0.5, "axis": [0, 1]}}, "unit_norm")


def inputs(shape, index):
    """Numbers between -2 and 2 with six binary digits, other ones for every index."""
    size = int(np.prod(shape))
    return (((np.arange(size, dtype=np.int64) * 7919 + index * 104729) % 257 - 128) / 64).reshape(shape).astype(np.float32)


def pair(draw, most):
    value = [draw.randint(1, most), draw.randint(1, most)]
    return draw.choice([value[0], value, value])


def initializer(draw, names):
    name, config = draw.choice(names), {"seed": draw.randint(0, 10**6)}
    if name == "VarianceScaling":
        config |= {"scale": 2.0, "mode": draw.choice(["fan_in", "fan_out", "fan_avg"]), "distribution": "uniform"}
    return {"class_name": name, "config": config if name not in ("Ones", "Zeros") else {}}


def case(draw):
    """Random arguments and a random input shape: small, mostly valid, sometimes of a kind that is refused."""
    dilated = draw.random() < 0.25
    first = draw.random() < 0.3
    arguments = {
        "kernel_size": pair(draw, 4),
        "strides": draw.choice([1, 1, 1, 1, 2, 2, 2, 3, 3, [2, 2], [2, 1], [1, 3]]) if not dilated or draw.random() < 0.1 else 1,
        "padding": draw.choice(["valid", "same", "SAME", "Valid"]),
        "depth_multiplier": draw.choice([1, 1, 1, 2, 3]),
        "data_format": "channels_first" if first else "channels_last",
        "dilation_rate": pair(draw, 3) if dilated else 1,
        "activation": draw.choice(ACTIVATIONS),
        "use_bias": draw.random() < 0.8,
        "depthwise_initializer": initializer(draw, draw.choice([UNIFORM, UNIFORM, (*NORMAL, "VarianceScaling", "Ones")])),
        "bias_initializer": initializer(draw, draw.choice([("Zeros",), UNIFORM[3:]])),
        "depthwise_regularizer": draw.choice(REGULARIZERS),
        "bias_regularizer": draw.choice(REGULARIZERS),
        "activity_regularizer": draw.choice([None, None, None, *REGULARIZERS]),
        "depthwise_constraint": draw.choice(CONSTRAINTS),
        "bias_constraint": draw.choice([None, None, "non_neg"]),
        "name": f"layer_{draw.randint(0, 999)}",
        "trainable": draw.random() < 0.85,
        "dtype": draw.choice(["float32"] * 12 + ["float64", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]),
    }
    if "16" in arguments["dtype"]:  # TensorFlow adds up in 16 bits: no comparing after a jump or a cancellation
        arguments["activation"] = draw.choice([None, "relu", "relu6"])
        arguments["depthwise_initializer"] = {"class_name": "Constant", "config": {"value": 0.375}}
    channels, rows, cols = draw.randint(1, 4), draw.choice([1, 3, 5, 6, 7, 8]), draw.choice([2, 4, 5, 6, 7, 8])
    image = [channels, rows, cols] if first else [rows, cols, channels]
    return {"arguments": arguments, "input_shape": [draw.choice([0, 1, 1, 2, 2, 2]), *image]}


def cases(count, seed):
    draw = random.Random(seed)
    return [case(draw) for _ in range(count)]


def build(cls, question):
    return cls(**question["arguments"])


def flat(array):
    array = np.asarray(array)
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32).ravel()


def plain(value):
    """An array or number of NumPy's from one of TensorFlow's."""
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def ask(cls, question, index):
    """What a layer class answers: a dict, weights, outputs; or the type of the error and where it came from."""
    stage = "constructor"
    try:
        layer = build(cls, question)
        stage = "compute_output_shape"
        computed = layer.compute_output_shape(tuple(question["input_shape"]))
        stage = "call"
        outputs = layer(inputs(question["input_shape"], index))
    except Exception as error:  # the type is what is recorded
        return {"raises": type(error).__name__, "in": stage}, [], None
    answer = {
        "config": layer.get_config(), "computed_shape": list(computed), "output_shape": list(outputs.shape),
        "dtype": plain(outputs).dtype.name, "losses": [float(plain(loss)) for loss in layer.losses],
        "count_params": layer.count_params(), "build_config": layer.get_build_config(),
        "trainable_weights": len(layer.trainable_weights), "non_trainable_weights": len(layer.non_trainable_weights),
    }
    return answer, [plain(weight) for weight in layer.get_weights()], plain(outputs)


# What a constructor is given beside kernel_size=3; compute_output_shape and call follow where it does not refuse.
ODD_ARGUMENTS = [
    {"kernel_size": value} for value in (0, -1, [3], [3, 3, 3], [1, 0], "3", "33", ["3", "3"], "ab", None, 2.0, [3.0, 2.5], [])
] + [{"strides": value} for value in (0, -1, [0, 1], [1, 1, 1], None, 1.5, "2", [1, None])] + [
    {"dilation_rate": value} for value in (0, -2, [1, 0], [1], None, 2.0, "1")] + [
    {"padding": value} for value in ("full", "causal", "", None, 1, [[0, 0], [1, 1]], "Same", "VALID")] + [
    {"depth_multiplier": value} for value in (0, -1, None, 1.5, "2")] + [
    {"data_format": value} for value in ("nhwc", "NCHW", "Channels_First", 1, "")] + [
    {key: value} for key in ("activation", "depthwise_initializer", "bias_initializer", "depthwise_regularizer", "bias_regularizer",
                             "activity_regularizer", "depthwise_constraint", "bias_constraint")
    for value in ("nope", 1, {}, {"class_name": "nope", "config": {}}, {"class_name": "__lambda__", "config": {"value": "x"}})] + [
    {key: None} for key in ("activation", "depthwise_initializer", "depthwise_regularizer", "depthwise_constraint")] + [
    {"name": value} for value in ("a/b", 3, "", "ok")] + [{"trainable": value} for value in (1, "yes", None, False)] + [
    {"dtype": value} for value in ("nope", "int8", "float8", 3, None, "float64", "bfloat16")] + [
    {"foo": 1}, {"groups": 2}, {"kernel_initializer": "zeros"}, {"kernel_regularizer": None}, {"weights": []}, {"filters": 3},
    {"dynamic": True}, {"implementation": 1}, {"autocast": False},
    {"strides": 2, "dilation_rate": 2}, {"strides": [1, 2]}, {"strides": [2, 1], "padding": "same"},
]
INPUT_SHAPES = [[8], [8, 3], [8, 8, 3], [1, 8, 8, 3, 3], [1, 2, 8, 3], [1, 8, 2, 3], [0, 8, 8, 3], [1, 8, 8, 3], [2, 3, 3, 1]]
SHAPES = [  # (arguments, shape) for compute_output_shape, where None is not known
    ({}, [None, None, None, 3]), ({}, [None, 8, None, 3]), ({"strides": 2, "padding": "same"}, [None, 7, 8, 2]),
    ({"data_format": "channels_first", "depth_multiplier": 2}, [None, 3, None, 9]), ({}, [2, 2, 8, 3]), ({}, [2, 8, 1, 3]),
    ({"dilation_rate": 4}, [1, 8, 9, 1]), ({"dilation_rate": 4}, [1, 9, 9, 1]), ({"strides": [2, 3], "padding": "same"}, [2, 7, 6, 3]),
    ({"strides": [2, 3]}, [2, 7, 7, 3]), ({"kernel_size": [1, 5]}, [0, 1, 5, 2]), ({"padding": "same"}, [1, 1, 1, 1]),
]
CLASS_NAMES = ["DepthwiseConv2D", "DepthwiseConv2D", "DepthwiseConv2D", "MyDW", "MyDW", "A", "ABCDef", "HTTPServer2Go", "X1Ab2CD",
               "lower", "Under_Score", "DWConv3x3BNReLU"]
KERAS_2 = [
    {"kernel_size": 3}, {"kernel_size": [3, 5], "strides": [2, 2], "padding": "SAME", "depth_multiplier": 2, "name": "full",
     "data_format": "channels_first", "activation": "swish", "use_bias": False, "depthwise_initializer": "he_normal",
     "depthwise_regularizer": "l1_l2", "bias_regularizer": "l1", "activity_regularizer": "l2", "depthwise_constraint": "max_norm",
     "bias_constraint": "unit_norm", "trainable": False, "dtype": "float64"},
    {"kernel_size": 2, "dilation_rate": [2, 1], "activation": "relu6", "bias_initializer": {"class_name": "Constant", "config":
     {"value": 0.5}}, "depthwise_constraint": "radial_constraint"},
    {"kernel_size": 3, "batch_input_shape": [None, 8, 8, 3], "activation": "LeakyReLU"},
]


def odd_questions():
    questions = [{"arguments": {"kernel_size": 3, "data_format": "channels_last"} | odd, "input_shape": [1, 8, 8, 3]}
                 for odd in ODD_ARGUMENTS]
    return questions + [{"arguments": {"kernel_size": 3, "data_format": "channels_last"}, "input_shape": shape}
                        for shape in INPUT_SHAPES]


def shape_answers(cls):
    answers = []
    for arguments, shape in SHAPES:
        layer = cls(**({"kernel_size": 3, "data_format": "channels_last"} | arguments))
        try:
            answers.append(list(layer.compute_output_shape(tuple(shape))))
        except Exception as error:
            answers.append(type(error).__name__)
    return answers


def names(cls):
    return [[name, type(name, (cls,), {})(3).name] for name in CLASS_NAMES]


def keras_2_configs(old):
    try:
        import tf_keras
    except ImportError:
        return old
    layers = [tf_keras.layers.DepthwiseConv2D(**arguments) for arguments in KERAS_2]
    return [json.loads(json.dumps({"arguments": arguments, "config": layer.get_config(), "serialized": tf_keras.layers.serialize(layer)}))
            for arguments, layer in zip(KERAS_2, layers)]


def main():
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    layer_class = keras.layers.DepthwiseConv2D
    record = {"versions": {"keras": keras.__version__, "tensorflow": tf.__version__}, "names": names(layer_class)}
    numbers = {"float32": [], "float64": []}
    for section, questions in ("cases", cases(320, 20)), ("odd", odd_questions()):
        record[section] = []
        for index, question in enumerate(questions):
            answer, weights, outputs = ask(layer_class, question, index)
            if section == "odd":  # only whether and how it is refused
                answer = {key: answer[key] for key in ("raises", "in", "output_shape") if key in answer}
            else:
                for array in weights if outputs is None else (*weights, outputs):
                    numbers[flat(array).dtype.name].append(flat(array))
                if "config" in answer:
                    answer["weights"] = [[list(weight.shape), weight.dtype.name] for weight in weights]
            record[section].append(question | {"keras": answer})
    record["shapes"] = [{"arguments": arguments, "shape": shape, "keras": answer}
                        for (arguments, shape), answer in zip(SHAPES, shape_answers(layer_class))]
    old = json.loads(TARGET.read_text())["keras_2"] if TARGET.exists() else []
    record["keras_2"] = keras_2_configs(old)
    text = json.dumps(record, separators=(",", ":")).replace('},{"arguments"', '},\n{"arguments"')
    TARGET.write_text(text + "\n")
    np.savez_compressed(TARGET.with_suffix(".npz"), **{name: np.concatenate(parts) for name, parts in numbers.items()})
    refused = sum("raises" in case["keras"] for case in record["cases"])
    print(f"{len(record['cases'])} cases, {refused} of them refused by Keras; {len(record['odd'])} odd ones; "
          f"{TARGET.stat().st_size + TARGET.with_suffix('.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
