"""Write tests/data/torch_depthwise.npz: a depthwise convolution with a multiplier as PyTorch and ONNX Runtime compute it.

Run it with a Python that has torch, onnx and onnxruntime; it needs nothing of dwconv.  It holds weight (C*M, 1, kh, kw), bias
(C*M,), x (N, C, H, W) and the outputs of both, with strides and symmetric padding.
"""

import pathlib

import numpy as np
import onnx
import onnxruntime
import torch

TARGET = pathlib.Path(__file__).parents[1] / "data" / "torch_depthwise.npz"
CHANNELS, MULTIPLIER = 4, 3


def main():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(CHANNELS, CHANNELS * MULTIPLIER, (3, 2), stride=(2, 1), padding=(1, 0), groups=CHANNELS)
    x = torch.randn(2, CHANNELS, 7, 6)
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=CHANNELS, strides=[2, 1], pads=[1, 0, 1, 0])
    graph = helper.make_graph(
        [node], "depthwise", [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    onnx_weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    arrays = {"weight": weight, "onnx_weight": onnx_weight, "bias": bias, "x": x.numpy(), "torch": conv(x).detach().numpy(),
              "onnx": session.run(None, {"x": x.numpy()})[0]}
    np.savez_compressed(TARGET, **arrays)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
