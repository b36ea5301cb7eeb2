"""Write tests/data/keras_files.zip: the files that real Keras 3 and Keras 2 write of one small MobileNet-style model.

Run it in the environment of setup-keras.sh; it needs nothing of dwconv.  The zip holds the model of each Keras as .keras, whole
as .h5, and its weights alone as .weights.h5 and (Keras 2 only) .h5; files of a model of one layer, also in bfloat16; and
activations.npz: what went into and came out of every depthwise layer of both models in one prediction,
"<keras3 or keras2>/<layer>/<inputs or outputs>", and the output of the layer in single.weights.h5.  Of a SeparableConv2D the
output is that of its depthwise half.  Weights are given by a formula, so that a second run differs in dates and
object ids only.
"""

import io
import os
import pathlib
import tempfile
import zipfile

os.environ["TF_USE_LEGACY_KERAS"] = "0"

import record_layers as record  # first, since it sets Keras' environment

import keras
import numpy as np
import tensorflow as tf
import tf_keras

TARGET = pathlib.Path(__file__).parents[1] / "data" / "keras_files.zip"
DEPTHWISE = ("dw_1", "dw_2", "block/dw_1", "block/inner/depthwise", "sep", "frames/dw")


def mobile(api):
    """Strides, multipliers, dilation, activations, with and without bias, nested models, one name twice, a wrapper."""
    layers = api.layers
    images = x = api.Input((12, 10, 3), name="images")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw_1")(x)
    x = layers.BatchNormalization(name="bn_1")(x)
    x = layers.ReLU(6.0, name="relu_1")(x)
    x = layers.Conv2D(6, 1, name="pw_1")(x)
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, activation="relu6", name="dw_2")(x)
    inner = api.Sequential([layers.DepthwiseConv2D(2, use_bias=False, padding="same", name="depthwise")], name="inner")
    inputs = y = api.Input((5, 4, 12), name="features")
    y = layers.DepthwiseConv2D((2, 3), dilation_rate=(1, 2), padding="same", activation="swish", name="dw_1")(y)
    y = layers.Conv2D(6, 1, name="pw_1")(y)
    x = api.Model(inputs, inner(y), name="block")(x)
    x = layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2, padding="same", activation="relu", name="sep")(x)
    x = layers.Reshape((1, 3, 2, 5), name="one_frame")(x)
    x = layers.TimeDistributed(layers.DepthwiseConv2D(2, depthwise_regularizer="l2", name="dw"), name="frames")(x)
    return api.Model(images, layers.Flatten(name="flat")(x), name="mobile")


def single(api, dtype="float32"):
    layer = api.layers.DepthwiseConv2D(3, depth_multiplier=2, dtype=dtype, name="one")
    return api.Sequential([api.Input((5, 6, 3)), layer])


def fill(model):
    """Weights by formula; variances of a batch normalisation are not negative."""
    values = [record.inputs(tuple(weight.shape), index) / 4 for index, weight in enumerate(model.get_weights())]
    model.set_weights([np.abs(value) if weight.min() == 1 else value for value, weight in zip(values, model.get_weights())])
    return model


def find(model, name):
    """The layer with a name such as block/dw_1."""
    for part in name.split("/"):
        model = model.layer if hasattr(model, "layer") else model.get_layer(part)
    return model


def depthwise_half(layer, inputs):
    stride, padding = layer.strides[0], layer.padding.upper()
    return tf.nn.depthwise_conv2d(inputs, tf.convert_to_tensor(layer.depthwise_kernel), (1, stride, stride, 1), padding)


def activations(model, prefix):
    """What goes into and comes out of each depthwise layer in one prediction, by watching its `call`."""
    seen = {}

    def watch(name, layer):
        call = layer.call

        def watched(inputs, *args, **kwargs):
            outputs = call(inputs, *args, **kwargs)
            half = depthwise_half(layer, inputs) if "Separable" in type(layer).__name__ else outputs
            seen[f"{prefix}/{name}/inputs"], seen[f"{prefix}/{name}/outputs"] = record.plain(inputs), record.plain(half)
            return outputs

        layer.call = watched

    for name in DEPTHWISE:
        watch(name, find(model, name))
    model(record.inputs((1, 12, 10, 3), 1), training=False)
    assert len(seen) == 2 * len(DEPTHWISE), sorted(seen)
    return seen


def main():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for api, name in (keras, "keras3"), (tf_keras, "keras2"):
            model = fill(mobile(api))
            model.save(f"{name}.keras")
            model.save(f"{name}.h5")
            model.save_weights(f"{name}.weights.h5")
            if api is tf_keras:
                model.save_weights(f"{name}_weights_only.h5")
            arrays |= activations(model, name)
        one = fill(single(keras))
        one.save_weights("single.weights.h5")
        arrays["single/outputs"] = record.plain(one(record.inputs((1, 5, 6, 3), 2)))
        fill(single(keras, "bfloat16")).save("single_bfloat16.keras")
        file = io.BytesIO()
        np.savez(file, **arrays)
        pathlib.Path("activations.npz").write_bytes(file.getvalue())
        with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(pathlib.Path().iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
            print(f"keras {keras.__version__}, tf_keras {tf_keras.__version__}: {archive.namelist()}, {len(arrays)} arrays")
    print(f"{TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
