"""`DepthwiseConv2D`, the Keras layer on NumPy arrays; and what writes a layer to a dict and reads it again.

Here is what makes the layer depthwise: its options, its weights' shapes, its operation, its config.  What every layer has
is in _layer_base, what arguments may be in _layer_checks, the way back in _layer_gradients, and the numbers come from
`depthwise_conv2d` and its gradients.  Refused: what Keras documents as an error (causal padding, strides with dilation),
"glu", and configs that name anything but the registries' own and the user's registered objects.
"""

from . import _layer_base, _layer_gradients, activations, constraints, initializers, regularizers
from . import _layer_checks as checks
from ._arrays import common_dtypes, delivered
from ._geometry import axis
from ._layer_base import Layer
from ._layer_gradients import Gradients as Gradients  # what `vjp`'s pullback returns
from ._registry import Registry
from .functional import depthwise_conv2d

_registry = Registry("layer", "layers")


@_registry.register()
class DepthwiseConv2D(Layer):
    """Depthwise 2-D convolution: each channel with its own `depth_multiplier` filters.

    ``layer(inputs)`` is ``activation(convolution_op(inputs, kernel) + bias)`` for inputs of shape (N, H, W, C), or
    (N, C, H, W) if `data_format` is "channels_first"; output channel ``c*M + m`` is filter m of channel c.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Rows and columns of a filter.
    strides, dilation_rate : int or (int, int)
        Strides may differ; a stride above 1 together with a dilation above 1 is refused, as Keras documents it.
    padding : {"valid", "same"}
        In any case.  "same" gives ceil(size / stride) outputs, the odd element of padding at the bottom and right.
    depth_multiplier : int
        M, the filters of each channel.
    data_format : {"channels_last", "channels_first"}, optional
        Default: `image_data_format` of the user's keras.json, else "channels_last".
    activation : str, callable, dict or None
        As `dwconv.activations.get` takes it; "glu" is refused, since it halves an axis.
    use_bias : bool
        Whether to add a bias.
    depthwise_initializer, bias_initializer : str, callable, dict, array or None
        First values of the weights; None gives Glorot's uniform distribution for the kernel and zeros for the bias.
    depthwise_regularizer, bias_regularizer, activity_regularizer : str, callable, dict or None
        Penalties on the weights and on the outputs, found in `losses`.
    depthwise_constraint, bias_constraint : str, callable, dict or None
        What `apply_constraints` applies, and nothing else does.
    **kwargs
        `name`; `trainable`; `dtype`, the name of a float dtype or "mixed_float16" or "mixed_bfloat16" (weights are float32,
        the rest 16-bit; all 16-bit computing goes through float32); `autocast`, whether floating-point inputs are
        converted to that dtype.  ``groups=1``, `input_shape`, `input_dim`, `batch_size` and `batch_input_shape` are taken and
        mean nothing here.

    Attributes
    ----------
    kernel, depthwise_kernel : ndarray, shape (kh, kw, C, M)
        One array under two names, in both layouts; AttributeError before the layer is built.  Assigning checks the shape.
    bias : ndarray, shape (C*M,), or None

    Raises
    ------
    ValueError
        For arguments that are none of the above.

    Notes
    -----
    Differences to Keras 3.15: strides may be unequal; a stride above 1 with a dilation above 1 is refused as its docstring
    says, while it computes them; integer and bool inputs are converted; a 'valid' window that does not fit is always an
    error.  A subclass changes the operation by overriding `convolution_op`, and to train
    `convolution_op_vjp`; one that overrides `build` calls this one's.

    Examples
    --------
    >>> import numpy as np
    >>> import dwconv
    >>> layer = dwconv.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
    >>> layer(np.ones((1, 5, 5, 4), np.float32)).shape
    (1, 5, 5, 8)

    A layer that standardises its weights, as proposed in arXiv:1903.10520:

    >>> class Standardised(dwconv.DepthwiseConv2D):
    ...     def convolution_op(self, inputs, kernel):
    ...         kernel = kernel - kernel.mean((0, 1))
    ...         return super().convolution_op(inputs, kernel / (kernel.std((0, 1)) + 1e-5))
    >>> float(abs(Standardised(3)(np.ones((1, 3, 3, 4), np.float32))).max()) < 1e-5
    True
    """

    rank = 2
    depthwise_kernel = Layer.kernel

    def __init__(self, kernel_size, strides=(1, 1), padding="valid", depth_multiplier=1, data_format=None, dilation_rate=(1, 1),
                 activation=None, use_bias=True, depthwise_initializer="glorot_uniform", bias_initializer="zeros",
                 depthwise_regularizer=None, bias_regularizer=None, activity_regularizer=None, depthwise_constraint=None,
                 bias_constraint=None, **kwargs):
        super().__init__(**checks.keyword_arguments(kwargs, type(self)))
        self.kernel_size = checks.integers("kernel_size", kernel_size)
        self.strides = checks.integers("strides", strides)
        self.dilation_rate = checks.integers("dilation_rate", dilation_rate)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError("A stride above 1 with a dilation above 1 is refused, as Keras documents it; `depthwise_conv2d` "
                             f"takes both. Received: strides={self.strides}, dilation_rate={self.dilation_rate}")
        self.padding = checks.padding(padding)
        self.depth_multiplier = checks.integer("depth_multiplier", depth_multiplier)
        self.data_format = checks.data_format(data_format)
        self.activation = activations._of_one_argument(activation)
        self.use_bias = checks.boolean("use_bias", use_bias)
        self.depthwise_initializer = initializers.get(depthwise_initializer) or initializers.GlorotUniform()
        self.bias_initializer = initializers.get(bias_initializer) or initializers.Zeros()
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.input_spec = checks.InputSpec(4, {})

    @property
    def _channel_axis(self):
        return -1 if self.data_format == "channels_last" else 1

    @property
    def _options(self):
        return {name: getattr(self, name) for name in ("strides", "padding", "dilation_rate", "data_format")}

    # --- life

    def build(self, input_shape):
        """Makes the weights for inputs of that shape, (N, H, W, C) or (N, C, H, W), of which only C must be known.

        ValueError for any other shape, for one in which no window fits, and if the layer is built already.
        """
        shape = checks.shape(input_shape)
        self.compute_output_shape(shape)
        channels = shape[self._channel_axis]
        if not channels:
            raise ValueError(f"The number of channels, axis {self._channel_axis}, must be known and positive. Received: {shape}")
        with _layer_base.lock:
            if self.built:
                raise ValueError(f"Layer {self.name!r:.80} is already built, for inputs of shape {self._build_shape}")
            kernel = self._new_weight("kernel", self.depthwise_initializer, (*self.kernel_size, channels, self.depth_multiplier))
            bias = self._new_weight("bias", self.bias_initializer, (channels * self.depth_multiplier,)) if self.use_bias else None
            self._weights, self._build_shape = (kernel, bias), shape
            self.input_spec = checks.InputSpec(4, {self._channel_axis: channels})
            self.built = True

    def call(self, inputs):
        """``activation(convolution_op(inputs, kernel) + bias)`` for an array that `__call__` has checked."""
        kernel, bias = self._built_weights()
        if self.autocast and kernel.dtype != self._compute_dtype:  # as Keras does under the mixed policies
            kernel, bias = kernel.astype(self._compute_dtype), None if bias is None else bias.astype(self._compute_dtype)
        # One operation where nobody can see the difference: bias and relu cost next to nothing inside it.
        if getattr(self.convolution_op, "__func__", None) is DepthwiseConv2D.convolution_op:
            activation = None if self.activation is activations.linear else self.activation
            return depthwise_conv2d(inputs, kernel, bias, strides=self.strides, padding=self.padding, activation=activation,
                                    dilation_rate=self.dilation_rate, data_format=self.data_format)
        dtype, computed = common_dtypes((inputs, kernel))
        outputs = self.convolution_op(inputs.astype(computed, copy=False), kernel.astype(computed, copy=False))
        outputs = checks.convolved(outputs, computed)
        if bias is not None:
            outputs = outputs + (bias if self.data_format == "channels_last" else bias[:, None, None])
        return delivered(checks.activated(activations.get(self.activation), outputs), None, dtype)

    def convolution_op(self, inputs, kernel):
        """The depthwise convolution with the layer's geometry, without bias and activation; to be overridden.

        inputs (N, H, W, C) or (N, C, H, W) and kernel (kh, kw, C, M) give an array (N, OH, OW, C*M) or (N, C*M, OH, OW) of dtype
        ``np.result_type(inputs, kernel)``; a 16-bit layer passes float32 arrays.  `convolution_op_vjp` is its way back.
        """
        return depthwise_conv2d(inputs, kernel, **self._options)

    def compute_output_shape(self, input_shape):
        """The shape of the outputs for inputs of a shape in which None is not known; ValueError where no window fits."""
        n, *image = checks.shape(input_shape)
        *sizes, channels = image if self.data_format == "channels_last" else (*image[1:], image[0])
        if channels == 0:
            raise ValueError(f"The number of channels must be positive. Received: input_shape={(n, *image)}")
        options = zip(("height", "width"), sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True)
        rows, cols = (size if size is None else axis(label, size, *rest, self.padding)[1] for label, size, *rest in options)
        channels = None if channels is None else channels * self.depth_multiplier
        return (n, rows, cols, channels) if self.data_format == "channels_last" else (n, channels, rows, cols)

    def apply_constraints(self):
        """Replaces the weights by what their constraints make of them, as Keras' optimizers do after each step."""
        kernel, bias = self._built_weights()
        pairs = {"kernel": (self.depthwise_constraint, kernel), "bias": (self.bias_constraint, bias)}
        self._replace(**{label: f(weight) for label, (f, weight) in pairs.items() if f is not None and weight is not None})

    # --- training

    def vjp(self, inputs):
        """The outputs for a batch of images, and the function that takes gradients back; nothing is kept on the layer.

        Parameters
        ----------
        inputs : array_like
            As for a call of the layer.

        Returns
        -------
        outputs : ndarray
            Those of a call.  `losses` stay as they are, so what they hold of outputs is still the last call's.
        pullback : function (output_grad, losses_grad=0.0) -> Gradients(inputs, depthwise_kernel, bias)
            Takes the gradient of a scalar for `outputs` to that for the inputs and the weights, and adds `losses_grad` times the
            gradient of ``sum(losses)``.  It reads `inputs` and `outputs`: change neither in place before it is called.

        Raises
        ------
        ValueError
            For inputs that a call refuses, and for an activation or a regularizer without an attribute `gradient`.
        NotImplementedError
            If a subclass overrides `call` without `vjp`, or `convolution_op` without `convolution_op_vjp`.
        """
        return _layer_gradients.vjp(self, inputs, DepthwiseConv2D)

    def convolution_op_vjp(self, inputs, kernel):
        """``(outputs, pullback)`` of `convolution_op`; ``pullback(grad)`` is ``(gradient for inputs, gradient for kernel)``.

        To be overridden with it: the subclass calls this one with the kernel that it makes, and takes the gradient for that
        kernel back to the one that it was given.
        """
        pullback = _layer_gradients.convolution_pullback(inputs, kernel, self._options)
        return DepthwiseConv2D.convolution_op(self, inputs, kernel), pullback

    # --- configs

    def get_config(self):
        """The constructor's arguments as Keras 3.15 writes and reads them: a dict of what JSON has."""
        policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": self._policy.name}, "registered_name": None}
        config = {"name": self.name, "trainable": self.trainable, "dtype": policy}
        activity = {"activity_regularizer": regularizers.serialize(self.activity_regularizer)}
        if self.activity_regularizer is not None:
            config |= activity  # Keras' place for it
        for key in ("depth_multiplier", "kernel_size", "strides", "padding", "data_format", "dilation_rate"):
            config[key] = getattr(self, key)
        return config | {
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "depthwise_initializer": initializers.serialize(self.depthwise_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "depthwise_regularizer": regularizers.serialize(self.depthwise_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            **activity,
            "depthwise_constraint": constraints.serialize(self.depthwise_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }

    @classmethod
    def from_config(cls, config):
        """A layer, not built, from a config of `get_config`, of Keras 3 or of Keras 2; ValueError for any other."""
        config = checks.layer_config(config)
        try:
            return cls(**config)
        except TypeError as error:  # a missing or unknown argument
            raise ValueError(f"Not a config of {cls.__name__}: {str(error)[:200]}") from error


def serialize(layer):
    """What Keras 3 writes for a layer in a model: ``{"module", "class_name", "config", "registered_name", "build_config"}``.

    The last only if the layer is built.  TypeError for what is not a `DepthwiseConv2D`, ValueError for options that no
    config brings back (a lambda).
    """
    if not isinstance(layer, DepthwiseConv2D):
        raise TypeError(f"`layer` must be a DepthwiseConv2D. Received: {checks.short(layer)}")
    build_config = layer.get_build_config()
    return _registry.serialize(layer) | ({} if build_config is None else {"build_config": build_config})


def deserialize(config, custom_objects=None):
    """The layer that `serialize` or Keras 2 or 3 described, built if the config says for what.

    Parameters
    ----------
    config : dict
        With "class_name" and "config"; a subclass is found by `register_serializable` or in `custom_objects`.
    custom_objects : dict of str to class or function, optional
        What the config may name besides the registries' own.

    Returns
    -------
    DepthwiseConv2D
        Without its weights' values, which no config holds.

    Raises
    ------
    ValueError
        For anything else: nothing is imported, opened or run because a config says so.
    """
    config = checks.config(config)
    layer = _registry.deserialize(config, custom_objects)
    if not isinstance(layer, DepthwiseConv2D):
        raise ValueError(f"Not a layer: {type(layer).__name__}")
    if config.get("build_config") is not None:
        layer.build_from_config(config["build_config"])
    return layer
