"""What every layer is, whatever it computes: a name, weights, losses, dtypes, a life; the part of ``keras.layers.Layer``.

The weights are one tuple, (kernel, bias or None), which is replaced as a whole and never changed in place: a call reads it
once, so threads may share a layer while another one sets its weights, and a refused `set_weights` changes nothing.
Not here, since arrays are all that goes in: symbolic inputs, masks, sublayers.  The one subclass is in layer.py.
"""

import copy
import inspect
import itertools
import os
import threading

from . import _layer_checks as checks

_LABELS = ("kernel", "bias")
lock = threading.RLock()  # for what happens once in a layer's life; one for all layers, since a lock cannot be pickled
_counters = {}  # automatic name: its numbers


def _after_fork():
    global lock
    lock = threading.RLock()  # the thread that held it is not in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _automatic_name(cls):
    """depthwise_conv2d, depthwise_conv2d_1, ... as Keras counts them: in the process, for each class name."""
    prefix = checks.snake_case(cls.__name__)
    with lock:
        number = next(_counters.setdefault(prefix, itertools.count()))
    return f"{prefix}_{number}" if number else prefix


class Layer:
    """Base of `DepthwiseConv2D`: a subclass has `call`, and a `build` that sets `_weights`, `_build_shape` and `built`."""

    supports_masking = False

    def __init__(self, *, name, trainable, dtype, autocast):
        self.trainable, self.dtype_policy, self.autocast = trainable, dtype, autocast
        self.name = _automatic_name(type(self)) if name is None else name
        self.built = False
        self._ready = False  # built, and no thread is still in `build`
        self._build_shape, self._weights, self._losses = None, None, []

    # --- life

    def __call__(self, inputs, *args, training=None, **kwargs):
        """The outputs for a batch of images; the first call builds the layer.

        Parameters
        ----------
        inputs : array_like, shape (N, H, W, C), or (N, C, H, W) for channels_first
            Floating-point numbers, which are converted to `compute_dtype` (unless `autocast` is False), integers or bool.
        training : bool, optional
            Passed on to a `call` that takes it, as all other arguments are.

        Returns
        -------
        ndarray, shape (N, OH, OW, C*M) or (N, C*M, OH, OW)
            Of `compute_dtype`.

        Raises
        ------
        ValueError
            For another number of axes or channels than the layer's, and where no window fits.
        TypeError
            For what is not an array of real numbers.
        """
        inputs = self._accepted(inputs)
        if training is not None and "training" in inspect.signature(self.call).parameters:
            kwargs["training"] = training
        if self._losses:
            self._losses = []
        outputs = self.call(inputs, *args, **kwargs)
        if self.activity_regularizer is not None:
            self.add_loss(self.activity_regularizer(outputs) / len(outputs) if len(outputs) else 0.0)
        return outputs

    def _accepted(self, inputs):
        """The inputs as an array that fits the layer, which is built for it if it is not yet."""
        inputs = checks.inputs(inputs, self._compute_dtype, self.autocast)
        if not self._ready:
            with lock:
                if not self.built:
                    self.build(inputs.shape)
                    self.built = True
                self._ready = True
        channels = self._built_weights()[0].shape[2]
        if inputs.ndim != 4 or inputs.shape[self._channel_axis] != channels:
            raise ValueError(f"Layer {self.name!r:.80} takes inputs with 4 axes and {channels} channels on axis "
                             f"{self._channel_axis}. Received: inputs of shape {inputs.shape}")
        return inputs

    def stateless_call(self, trainable_variables, non_trainable_variables, *args, return_losses=False, **kwargs):
        """The outputs with other weights, which the layer does not keep.

        Parameters
        ----------
        trainable_variables, non_trainable_variables : sequence of array_like
            In place of `trainable_weights` and `non_trainable_weights`.
        *args, **kwargs
            As for a call of the layer.
        return_losses : bool
            Whether to return `losses` too.

        Returns
        -------
        (outputs, non_trainable_variables) or (outputs, non_trainable_variables, losses)

        Raises
        ------
        ValueError
            If the layer is not built, or has other weights in number or shape.
        """
        self._built_weights()
        given, own = (trainable_variables, non_trainable_variables), (self.trainable_weights, self.non_trainable_weights)
        if [*map(len, given)] != [*map(len, own)]:
            raise ValueError(f"Layer {self.name!r:.80} has {len(own[0])} trainable and {len(own[1])} other weights. "
                             f"Received: {len(given[0])} and {len(given[1])}")
        twin = copy.copy(self)
        twin.set_weights([*trainable_variables, *non_trainable_variables])
        outputs = twin(*args, **kwargs)
        return (outputs, twin.non_trainable_weights, *([twin.losses] if return_losses else []))

    def get_build_config(self):
        """``{"input_shape": ...}``, what the layer was built for; None before."""
        return None if self._build_shape is None else {"input_shape": self._build_shape}

    def build_from_config(self, config):
        """`build` from what `get_build_config` returned; ValueError for anything else."""
        if not isinstance(config, dict) or "input_shape" not in config:
            raise ValueError(f"A build config is a dict with an input_shape. Received: {checks.short(config)}")
        self.build(config["input_shape"])

    def __copy__(self):
        """A layer with the same options and with weights of its own."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _losses=[*self._losses])
        twin.set_weights(self.weights)
        return twin

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"

    # --- weights

    def _built_weights(self):
        if self._weights is None:
            raise checks.NotBuiltError(f"Layer {self.name!r:.80} has no weights yet: call it, or its build(input_shape), first")
        return self._weights

    def _new_weight(self, label, initializer, shape):
        dtype = checks.dtype(self.variable_dtype)
        checks.countable(f"The {label} of layer {self.name!r:.80}", shape)
        return self._checked(label, initializer(shape, dtype=dtype), shape, dtype)

    def _checked(self, label, value, shape, dtype):
        return checks.weight(f"The {label} of layer {self.name!r:.80}", value, shape, dtype)

    def _replace(self, **values):
        """Checks all the new weights, then takes them at once."""
        old = dict(zip(_LABELS, self._built_weights(), strict=True))
        new = {label: self._checked(label, value, old[label].shape, old[label].dtype) for label, value in values.items()}
        self._weights = tuple({**old, **new}.values())

    @property
    def kernel(self):
        return self._built_weights()[0]

    @kernel.setter
    def kernel(self, value):
        self._replace(kernel=value)

    @property
    def bias(self):
        return self._built_weights()[1]

    @bias.setter
    def bias(self, value):
        if self.bias is None:
            raise ValueError(f"Layer {self.name!r:.80} has use_bias=False, and no bias to set")
        self._replace(bias=value)

    @property
    def weights(self):
        """The kernel and the bias, as far as there are any: the arrays themselves."""
        return [weight for weight in self._weights or () if weight is not None]

    @property
    def trainable_weights(self):
        """`weights` if the layer is trainable, else none."""
        return self.weights if self.trainable else []

    @property
    def non_trainable_weights(self):
        """`weights` if the layer is not trainable, else none."""
        return [] if self.trainable else self.weights

    variables, trainable_variables, non_trainable_variables = weights, trainable_weights, non_trainable_weights

    def get_weights(self):
        """Copies of `weights`."""
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights):
        """Sets all `weights` to copies of arrays of their shapes, converted to their dtype.

        ValueError for another number of them or another shape, TypeError for what is no real number: the layer is then
        as it was.
        """
        if not hasattr(weights, "__len__"):
            raise TypeError(f"`weights` must be a list of arrays. Received: {checks.short(weights)}")
        if len(weights) and not self.weights:
            self._built_weights()  # says what to do first
        if len(weights) != len(self.weights):
            raise ValueError(f"Layer {self.name!r:.80} has {len(self.weights)} weights. Received: a list of {len(weights)}")
        if self.weights:
            self._replace(**dict(zip(_LABELS, weights, strict=False)))

    def count_params(self):
        """The number of numbers in the weights; ValueError if the layer is not built."""
        return sum(weight.size for weight in self._built_weights() if weight is not None)

    def save_own_variables(self, store):
        """Puts the weights in a dict or an HDF5 group under "0" and "1", as Keras' files have them."""
        for index, weight in enumerate(self.weights):
            store[str(index)] = weight

    def load_own_variables(self, store):
        """`set_weights` from what `save_own_variables` stored; ValueError for other keys than those."""
        keys = [str(index) for index in range(len(self.weights))]
        if {*store.keys()} != {*keys}:
            raise ValueError(f"Layer {self.name!r:.80} expected variables {keys}. Received: {sorted(store.keys())!r:.200}")
        self.set_weights([store[key] for key in keys])

    def save_weights(self, path, overwrite=True):
        """Writes a .npz, .safetensors or .weights.h5 file, the last as Keras 3 does for a Sequential of the layer, all at once.

        ValueError if the layer is not built or the suffix another one, FileExistsError without `overwrite` if there is a file.
        """
        from . import _weight_files

        _weight_files.save(self, path, overwrite)

    def load_weights(self, path, name=None):
        """`set_weights` from a file of `save_weights`, `numpy.savez` or Keras 2 or 3; a layer that is not built is built.

        `name` is needed if there are several: "block/dw_1", or the group in the file; the error without it lists them.
        ValueError for a broken file, no such name or another shape: the layer is then as it was.  OSError if the file cannot
        be read, ImportError without h5py or safetensors if it needs them.
        """
        from . import _weight_files

        _weight_files.load(self, path, name)

    # --- losses, dtypes

    @property
    def losses(self):
        """Floats: those of the last call (`add_loss`, the activity regularizer), then the weights' if trainable.

        Calls in several threads mix theirs; `stateless_call` with `return_losses` does not.
        """
        pairs = zip((self.depthwise_regularizer, self.bias_regularizer), self._weights or (), strict=False)
        penalties = [float(f(weight)) for f, weight in pairs if f is not None and weight is not None]
        return [*self._losses, *penalties] if self.trainable else [*self._losses]

    def add_loss(self, loss):
        """Adds a number or a list of them to `losses`, until the next call of the layer; ValueError for anything else."""
        self._losses += [checks.scalar("loss", value) for value in (loss if isinstance(loss, list | tuple) else [loss])]

    @property
    def trainable(self):
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        self._trainable = checks.boolean("trainable", value)

    @property
    def dtype_policy(self):
        """(name, compute_dtype, variable_dtype); may be set to anything that the argument `dtype` may be."""
        return self._policy

    @dtype_policy.setter
    def dtype_policy(self, value):
        self._policy = checks.policy(value)
        self._compute_dtype = checks.dtype(self._policy.compute_dtype)

    @property
    def compute_dtype(self):
        """Name of the dtype of inputs and outputs."""
        return self._policy.compute_dtype

    @property
    def variable_dtype(self):
        """Name of the dtype of the weights."""
        return self._policy.variable_dtype

    dtype = variable_dtype
