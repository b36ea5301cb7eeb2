"""Layers of real networks and images: name, (N, H, W, C), kernel, stride, dilation, multiplier; padding "same"."""

SHAPES = {
    "mobilenet_v1_112x112x32_k3": ((1, 112, 112, 32), 3, 1, 1, 1),
    "mobilenet_v1_56x56x128_k3s2": ((1, 56, 56, 128), 3, 2, 1, 1),
    "mobilenet_v1_14x14x512_k3": ((1, 14, 14, 512), 3, 1, 1, 1),
    "mobilenet_v3_28x28x120_k5": ((1, 28, 28, 120), 5, 1, 1, 1),
    "convnext_t_14x14x384_k7": ((1, 14, 14, 384), 7, 1, 1, 1),
    "deeplab_28x28x256_k3d2": ((1, 28, 28, 256), 3, 1, 2, 1),
    "multiplier_64x64x32_k3m4": ((1, 64, 64, 32), 3, 1, 1, 4),
    "rgb_512x512x3_k5": ((1, 512, 512, 3), 5, 1, 1, 1),
    "tiny_4x4x8_k3": ((1, 4, 4, 8), 3, 1, 1, 1),
}
