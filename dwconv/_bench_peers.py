"""Other libraries for `python -m dwconv bench --against`: each as (call, its result as an array of dwconv's layout), or an error.

A function here takes a Case of _bench.py; arrays are handed over without a copy where the library can take them, and everything
that a user would do once (a model, a session, repacked weights) is done before `call`.  A library that does not have the pass
or the shape raises NotImplementedError.  None of them is imported before it is asked for.
"""

from importlib.util import find_spec

import numpy as np


def _need(condition, text):
    if not condition:
        raise NotImplementedError(f"it has only {text}")


def _oihw(case):
    """The kernel as (C*M, 1, kh, kw)."""
    kh, kw, c, m = case.kernel.shape
    return np.ascontiguousarray(case.kernel.transpose(2, 3, 0, 1)).reshape(c * m, 1, kh, kw)


def _torch(case):
    import torch

    torch.set_num_threads(case.workers)
    kh, kw, c, m = case.kernel.shape
    x, grad = (torch.from_numpy(a).permute(0, 3, 1, 2) if case.last else torch.from_numpy(a) for a in (case.x, case.grad))
    layout = torch.channels_last if case.last else torch.contiguous_format
    weight, bias = torch.from_numpy(_oihw(case)).contiguous(memory_format=layout), torch.from_numpy(case.bias)
    stride, pads, dilation = [case.shape.stride] * 2, list(case.pads), [case.shape.dilation] * 2

    def images(y):
        return (y.permute(0, 2, 3, 1) if case.last else y).numpy()

    if case.direction == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, bias, stride, pads, dilation, c), images
    which = 0 if case.direction == "input_grad" else 1
    wanted = [which == 0, which == 1, False]

    def gradient():
        return torch.ops.aten.convolution_backward(grad, x, weight, None, stride, pads, dilation, False, [0, 0], c, wanted)[which]
    return gradient, images if which == 0 else lambda y: y.reshape(c, m, kh, kw).permute(2, 3, 0, 1).numpy()


def _onnxruntime(case):
    import onnx
    import onnxruntime

    _need(case.direction == "forward", "the forward pass")
    _need(not case.last, "channels_first")
    element = onnx.helper.np_dtype_to_tensor_dtype(case.x.dtype)
    node = onnx.helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], kernel_shape=case.shape.kernel_size, strides=[case.shape.stride] * 2,
        dilations=[case.shape.dilation] * 2, group=case.x.shape[1], pads=[*case.pads, *case.pads])
    graph = onnx.helper.make_graph(
        [node], "convolution", [onnx.helper.make_tensor_value_info("x", element, case.x.shape)],
        [onnx.helper.make_tensor_value_info("y", element, case.grad.shape)],
        [onnx.numpy_helper.from_array(_oihw(case), "w"), onnx.numpy_helper.from_array(case.bias, "b")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = case.workers, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", case.x)
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding), lambda _: binding.copy_outputs_to_cpu()[0]


def _openvino(case):
    import openvino
    from openvino import opset8
    from openvino.preprocess import PrePostProcessor

    _need(case.direction == "forward", "the forward pass")
    _need(case.dtype == "float32", "float32")
    n, h, w, c = case.shape.x
    x = opset8.parameter([n, c, h, w], np.float32)
    kernel = _oihw(case)
    y = opset8.group_convolution(x, kernel.reshape(c, case.shape.multiplier, *kernel.shape[1:]), [case.shape.stride] * 2,
                                 list(case.pads), list(case.pads), [case.shape.dilation] * 2)
    model = openvino.Model([opset8.add(y, case.bias.reshape(1, -1, 1, 1))], [x])
    if case.last:
        steps = PrePostProcessor(model)
        for end in (steps.input(), steps.output()):
            end.tensor().set_layout(openvino.Layout("NHWC"))
            end.model().set_layout(openvino.Layout("NCHW"))
        model = steps.build()
    settings = {"INFERENCE_NUM_THREADS": case.workers, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(case.x, shared_memory=True))
    return request.infer, lambda _: request.get_output_tensor().data


def _tensorflow(case):
    import tensorflow as tf

    _need(case.last, "channels_last")
    shape = case.shape
    _need(shape.stride == 1 or shape.dilation == 1, "a stride or a dilation, not both")
    if tf.config.threading.get_intra_op_parallelism_threads() != case.workers:
        tf.config.threading.set_intra_op_parallelism_threads(case.workers)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    x, kernel, bias, grad = (tf.constant(a) for a in (case.x, case.kernel, case.bias, case.grad))
    # "SAME" where it is the same padding: dilation takes no other; and TensorFlow 2.21 aborts the process where it infers the
    # shape of a graph's forward pass with explicit padding, so that one runs eagerly
    same = shape.stride == 1 and all(k % 2 for k in shape.kernel_size)
    strides = [1, shape.stride, shape.stride, 1]
    options = {"strides": strides, "padding": "SAME"} if same else {
        "strides": strides, "padding": "EXPLICIT", "explicit_paddings": [0, 0, *(p for p in case.pads for _ in "ab"), 0, 0]}
    _need(same or shape.dilation == 1, "dilation with odd kernels here, where it pads as dwconv does")
    _need(case.direction == "forward" or shape.dilation == 1, "gradients without dilation")

    def forward():
        if same:
            return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, dilations=[shape.dilation] * 2, **options), bias)
        return tf.nn.bias_add(tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options), bias)

    def input_grad():
        return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(input_sizes=x.shape, filter=kernel, out_backprop=grad, **options)

    def kernel_grad():
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(input=x, filter_sizes=kernel.shape, out_backprop=grad, **options)

    compute = {"forward": forward, "input_grad": input_grad, "kernel_grad": kernel_grad}[case.direction]
    return compute if compute is forward and not same else tf.function(compute), lambda y: y.numpy()


def _by_planes(case, correlate):
    """A call that takes the planes of a forward pass one after another: correlate(plane, filter, bias, out)."""
    shape, out = case.shape, np.empty_like(case.grad)
    _need(case.direction == "forward", "the forward pass")
    _need((shape.stride, shape.dilation, shape.multiplier) == (1, 1, 1), "stride, dilation and multiplier 1")
    _need(all(k % 2 for k in shape.kernel_size), "odd kernels here, where it pads as dwconv does")
    x, y = ((case.x, out) if not case.last else (case.x.transpose(0, 3, 1, 2), out.transpose(0, 3, 1, 2)))
    filters = [np.ascontiguousarray(case.kernel[:, :, c, 0]) for c in range(case.kernel.shape[2])]

    def call():
        for n in range(x.shape[0]):
            for c, taps in enumerate(filters):
                correlate(x[n, c], taps, case.bias[c], y[n, c])
        return out
    return call, lambda y: y


def _scipy(case):
    import scipy.ndimage

    def correlate(plane, taps, bias, out):
        scipy.ndimage.correlate(plane, taps, output=out, mode="constant")
        out += bias
    return _by_planes(case, correlate)


def _opencv(case):
    import cv2

    _need(not case.last, "one filter for all channels of channels_last")
    cv2.setNumThreads(case.workers)

    def correlate(plane, taps, bias, out):
        cv2.filter2D(plane, -1, taps, dst=out, delta=float(bias), borderType=cv2.BORDER_CONSTANT)
    return _by_planes(case, correlate)


PEERS = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino, "tensorflow": _tensorflow,
         "scipy": _scipy, "opencv": _opencv}
NEEDS = {"onnxruntime": ("onnxruntime", "onnx"), "opencv": ("cv2",)}  # modules, where they are not the name


def missing(name):
    """Why a library cannot be asked, or None."""
    absent = [module for module in NEEDS.get(name, (name,)) if find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else None
