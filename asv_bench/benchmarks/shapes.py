"""Layers of real networks and images: name, (N, H, W, C), kernel, stride, dilation, multiplier; padding "same".

`python -m dwconv bench` knows the same names.  A changed row cuts its history: give it a new name.
"""

SHAPES = {
    "mobilenet_v1_112x112x32_k3": ((1, 112, 112, 32), 3, 1, 1, 1),
    "mobilenet_v1_56x56x128_k3s2": ((1, 56, 56, 128), 3, 2, 1, 1),
    "mobilenet_v1_14x14x512_k3": ((1, 14, 14, 512), 3, 1, 1, 1),
    "mobilenet_v1_7x7x1024_k3": ((1, 7, 7, 1024), 3, 1, 1, 1),
    "mobilenet_v3_28x28x120_k5": ((1, 28, 28, 120), 5, 1, 1, 1),
    "efficientnet_b0_56x56x144_k5s2": ((1, 56, 56, 144), 5, 2, 1, 1),
    "efficientnet_b0_14x14x672_k5": ((1, 14, 14, 672), 5, 1, 1, 1),
    "convnext_t_56x56x96_k7": ((1, 56, 56, 96), 7, 1, 1, 1),
    "convnext_t_14x14x384_k7": ((1, 14, 14, 384), 7, 1, 1, 1),
    "replknet_28x28x64_k31": ((1, 28, 28, 64), 31, 1, 1, 1),
    "deeplab_28x28x256_k3d2": ((1, 28, 28, 256), 3, 1, 2, 1),
    "multiplier_64x64x32_k3m4": ((1, 64, 64, 32), 3, 1, 1, 4),
    "rgb_512x512x3_k5": ((1, 512, 512, 3), 5, 1, 1, 1),
    "rgb_512x512x3_k9": ((1, 512, 512, 3), 9, 1, 1, 1),
    "hyperspectral_145x145x200_k3": ((1, 145, 145, 200), 3, 1, 1, 1),
    "batch8_28x28x256_k3": ((8, 28, 28, 256), 3, 1, 1, 1),
    "tiny_4x4x8_k3": ((1, 4, 4, 8), 3, 1, 1, 1),
}
FEW = ("mobilenet_v1_112x112x32_k3", "efficientnet_b0_14x14x672_k5", "convnext_t_14x14x384_k7", "batch8_28x28x256_k3")
