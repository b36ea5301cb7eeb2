"""`load_keras_layers`: the depthwise layers of a model that Keras saved, without Keras.

The only file here that makes layers from what a file describes: by `DepthwiseConv2D.from_config`, which knows dwconv's own
names and the user's registered objects.  Other layers of the model, and whatever custom objects they have, are passed over.
"""

import warnings

from . import _weight_files
from ._weight_entries import brief
from .layer import DepthwiseConv2D


def load_keras_layers(path):
    """The depthwise layers of a model that Keras saved, built and with its weights.

    Parameters
    ----------
    path : str, bytes or path-like
        A ``.keras`` file, a whole model in ``.h5``, or weights alone in ``.weights.h5`` or ``.h5``; of Keras 2 or 3.

    Returns
    -------
    dict of str to DepthwiseConv2D
        By layer name, in the model's order where the file describes it.  A layer inside another model has that model's name
        before its own, "block/dw_1".  Of a SeparableConv2D there is the depthwise half, without bias and activation.

    Raises
    ------
    ValueError
        For a file that is broken, is not Keras' or has no depthwise layer; for a layer without weights, and one that
        `DepthwiseConv2D` refuses, as it does an activation that neither dwconv nor `register_serializable` knows.
    OSError
        If the file cannot be read.
    ImportError
        Without h5py: ``pip install "dwconv[keras-files]"``.

    Warns
    -----
    UserWarning
        If the file does not describe a layer, which files of weights alone never do.  The weights then give its kernel
        size, multiplier and bias, and strides, padding, dilation and activation are the defaults: set them, or make the layer
        and call its `load_weights`.

    Examples
    --------
    ::

        layers = dwconv.load_keras_layers("mobilenet.keras")
        features = layers["conv_dw_1"](images)
    """
    layers, bare = {}, []
    with _weight_files.opened(path) as (kind, entries):
        depthwise = {name: weights for name, weights in entries.items() if weights.depthwise}
        if kind != "keras":
            raise ValueError(f"it is a file of arrays ({kind}), not Keras': `load_weights` of a layer reads it")
        if not depthwise:
            other = ", ".join(map(repr, list(entries)[:5]))[:200] or "none"
            raise ValueError(f"the file has no depthwise layer of a Keras model; kernels of other layers are {other}")
        for name, weights in depthwise.items():
            if weights.kernel is None:
                raise ValueError(f"the file describes layer {name[:100]!r} and has no weights for it")
            if weights.config is None:
                bare.append(name)
            try:
                layer = DepthwiseConv2D.from_config({**(weights.config or _guess(weights)), "name": name.rpartition("/")[2]})
            except ValueError as error:
                raise ValueError(f"layer {name[:100]!r}: {brief(error)[:250]}") from error
            _weight_files.set_weights(layer, _weight_files.matching(layer, weights))
            layers[name] = layer
    if bare:
        named = ", ".join(map(repr, bare[:5]))[:200] + (", ..." if len(bare) > 5 else "")
        warnings.warn(f"the file does not describe {named}: strides, padding, dilation_rate and activation are the defaults",
                      stacklevel=2)
    return layers


def _guess(weights):
    """The config of a layer that fits the weights."""
    *kernel_size, _, multiplier = weights.kernel.shape
    return {"kernel_size": kernel_size, "depth_multiplier": multiplier, "use_bias": weights.bias is not None}
