"""Real Keras 3 and Keras 2 read what `save_weights` writes, and dwconv what they write: usage `compare_files.py`.

Run it in the environment of setup-keras.sh with a built dwconv on PYTHONPATH.  For layers of several kinds: a .weights.h5 file of
dwconv, loaded by a Sequential of each Keras, gives dwconv's activations within 1e-5 of the largest; the same model's
.weights.h5 (and .h5), loaded by dwconv, gives back the same weights.  Exit status 1 at any difference.
"""

import os
import sys
import tempfile

os.environ["TF_USE_LEGACY_KERAS"] = "0"

import record_layers as record  # first, since it sets Keras' environment

import keras
import numpy as np
import tf_keras

import dwconv

CASES = [
    {"kernel_size": 3},
    {"kernel_size": [2, 5], "depth_multiplier": 3, "strides": 2, "padding": "same", "activation": "relu6"},
    {"kernel_size": 3, "dilation_rate": 2, "use_bias": False},
    {"kernel_size": 1, "dtype": "float64"},
    {"kernel_size": 3, "dtype": "mixed_bfloat16"},
    {"kernel_size": 3, "dtype": "bfloat16"},
]


def compare(api, arguments, folder):
    layer, shape = dwconv.DepthwiseConv2D(**arguments), (1, 9, 8, 3)
    layer.build(shape)
    layer.set_weights([record.inputs(weight.shape, index) for index, weight in enumerate(layer.weights)])
    model = api.Sequential([api.Input(shape[1:]), api.layers.DepthwiseConv2D(**arguments)])
    path = os.path.join(folder, "ours.weights.h5")
    layer.save_weights(path)
    model.load_weights(path)
    for own, theirs in zip(layer.weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(np.asarray(own, np.float64), np.asarray(theirs, np.float64))
    if "16" not in arguments.get("dtype", ""):  # TensorFlow adds up in 16 bits
        x = record.inputs(shape, 7)
        theirs = record.plain(model(x))
        np.testing.assert_allclose(layer(x), theirs, rtol=0, atol=1e-5 * abs(theirs).max())
    for name in ("theirs.weights.h5", "theirs.h5")[: 2 if api is tf_keras else 1]:
        path = os.path.join(folder, name)
        model.save_weights(path)
        again = dwconv.DepthwiseConv2D(**arguments)
        again.load_weights(path)
        for own, theirs in zip(layer.weights, again.weights, strict=True):
            np.testing.assert_array_equal(own, theirs)


def main():
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for api in keras, tf_keras:
            # Keras 2 does not even read the bfloat16 files that it writes ("No cast function available")
            for arguments in CASES[: -1 if api is tf_keras else None]:
                try:
                    compare(api, arguments, folder)
                except Exception as error:
                    failures += 1
                    print(f"keras {api.__version__}: {arguments}\n{type(error).__name__}: {error}\n")
    print(f"{2 * len(CASES) - 1} cases, {failures} differences; keras {keras.__version__}, tf_keras {tf_keras.__version__}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
