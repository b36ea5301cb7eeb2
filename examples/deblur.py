"""Recovers an unknown blur from a photograph and its blurred version: L-BFGS-B on the gradient for the kernel.

The camera moved on a curve while the shutter was open, and the sensor added noise.  Sought is the kernel k >= 0, the same
for every colour, that makes sum((conv(photograph, k) - blurred)**2) smallest.  Both pictures are passed through a Laplacian
first: it takes the large flat parts away, which say little about a blur and make the problem ill-conditioned.

    python examples/deblur.py [-o deblur.png]

Needs the extra `examples`; computes for some seconds.
"""

import argparse
import time

import numpy as np
import scipy.optimize
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import dwconv

SIZE, NOISE, STEPS = 15, 0.002, 100
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)


def camera_path():
    """The blur (SIZE, SIZE), sums to 1: how long each pixel saw the light of its neighbours."""
    t = np.linspace(0, 1, 2000)
    rows, cols = 2 + 10 * t, 7 + 5 * np.sin(2 * np.pi * t)
    kernel, _, _ = np.histogram2d(rows, cols, bins=SIZE, range=[[0, SIZE]] * 2)
    return kernel / kernel.sum()


def recover(sharp, blurred):
    """The kernel (SIZE, SIZE) and the losses of all steps; both pictures are (1, H, W, C)."""
    losses = []
    x = dwconv.depthwise_conv2d(sharp, LAPLACIAN)
    wanted = dwconv.depthwise_conv2d(blurred, LAPLACIAN)
    scale = 1 / float(np.square(wanted, dtype=np.float64).sum())

    def loss(flat):
        kernel = flat.reshape(SIZE, SIZE).astype(np.float32)
        error = dwconv.depthwise_conv2d(x, kernel) - wanted
        gradient = dwconv.depthwise_conv2d_kernel_grad(x, error, (SIZE, SIZE)).sum((2, 3))  # one kernel for all colours
        return scale * float(np.square(error, dtype=np.float64).sum()), 2 * scale * gradient.ravel().astype(float)

    start = np.full(SIZE * SIZE, 1 / SIZE**2)
    result = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size,
        callback=lambda intermediate_result: losses.append(intermediate_result.fun), options={"maxiter": STEPS, "ftol": 1e-12})
    return result.x.reshape(SIZE, SIZE), [loss(start)[0], *losses]


def draw(path, sharp, blurred, kernels, losses):
    """Photograph, blurred photograph, true and found kernel, loss at each step."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplot_mosaic([["sharp", "blurred", "losses"], ["true", "found", "losses"]])
    for name, picture in (("sharp", sharp), ("blurred", blurred)):
        axes[name].imshow(np.clip(picture[0], 0, 1))
        axes[name].set_title({"sharp": "photograph", "blurred": "blurred, with noise"}[name])
        axes[name].set_axis_off()
    for name, kernel in kernels.items():
        axes[name].imshow(kernel, cmap="gray", vmin=0, vmax=kernels["true"].max())
        axes[name].set_title(f"{name} kernel")
    axes["losses"].semilogy(losses)
    axes["losses"].set(xlabel="step of L-BFGS-B", title="squared error over that of zero")
    figure.savefig(path, dpi=80)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Recover an unknown blur from a photograph and its blurred version.")
    parser.add_argument("-o", "--output", default="deblur.png")
    options = parser.parse_args(arguments)
    sharp = load_sample_image("flower.jpg")[None].astype(np.float32) / 255
    true = camera_path()
    blurred = dwconv.depthwise_conv2d(sharp, true.astype(np.float32))
    blurred += np.random.default_rng(0).normal(0, NOISE, blurred.shape).astype(np.float32)

    start = time.perf_counter()
    found, losses = recover(sharp, blurred)
    seconds = time.perf_counter() - start
    error = float(np.abs(found - true).sum())
    print(f"photograph {sharp.shape}, kernel {found.shape}, {len(losses) - 1} steps in {seconds:.1f} s")
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}; sum of the kernel {found.sum():.4f}; "
          f"sum |found - true| {np.abs(true - 1 / true.size).sum():.3f} -> {error:.3f}")
    draw(options.output, sharp, blurred, {"true": true, "found": found}, losses)
    print(f"wrote {options.output}")
    return error


if __name__ == "__main__":
    main()
