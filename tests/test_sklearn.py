"""`dwconv.sklearn.DepthwiseFilter`: scikit-learn's own checks, pipelines and searches, shapes, dtypes and what is refused."""

import pickle

import numpy as np
import oracle
import pytest

import dwconv

pytest.importorskip("sklearn", minversion="1.6", reason="needs the extra `sklearn`")

import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from dwconv.sklearn import DepthwiseFilter

IMAGES, KERNEL = oracle.integers((4, 6, 5, 3), 1), oracle.integers((3, 3, 3, 2), 2)
X = IMAGES.reshape(4, -1)


@parametrize_with_checks([DepthwiseFilter([[1.0, 2.0, 1.0]]), DepthwiseFilter([[[[1.0, 0.5]]]], activation="relu", bias=[1, 2])])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("options", [
    {}, {"padding": "valid", "strides": (2, 1)}, {"padding": ((0, 1), (2, 3)), "activation": "relu6"},
    {"dilation_rate": 2, "bias": np.arange(6)}, {"data_format": "channels_first", "strides": 2},
], ids=str)
def test_is_the_function(options):
    """Rows in, rows out, and between them the function; `output_shape_` folds the rows again."""
    first = options.get("data_format") == "channels_first"
    images = IMAGES.transpose(0, 3, 1, 2) if first else IMAGES
    transformer = DepthwiseFilter(KERNEL, image_shape=images.shape[1:], **options)
    rows = transformer.fit_transform(images.reshape(4, -1))
    expected = oracle.conv(images, KERNEL, **{"padding": "same", **options})
    np.testing.assert_array_equal(rows.reshape(4, *transformer.output_shape_), expected, strict=True)
    names = transformer.get_feature_names_out()
    assert (len(names), names[0]) == (rows.shape[1], "depthwisefilter0")


def test_shapes_of_images():
    """(H, W) has one channel, in both layouts; without a shape a row is a signal."""
    rows = oracle.integers((3, 30), 5)
    expected = oracle.conv(rows.reshape(3, 5, 6, 1), KERNEL[:, :, 0, 0], padding="same").reshape(3, -1)
    for data_format in ("channels_last", "channels_first"):
        transformer = DepthwiseFilter(KERNEL[:, :, 0, 0], image_shape=[5, 6], data_format=data_format)
        np.testing.assert_array_equal(transformer.fit_transform(rows), expected)
        signals = DepthwiseFilter([[1.0, -2.0, 1.0]], data_format=data_format).fit_transform(rows)
        np.testing.assert_array_equal(signals, [np.convolve(row, [1, -2, 1], "same") for row in rows])


def test_dtypes_and_special_numbers():
    """That of X, whatever the kernel's; integers become float64; NaN reaches the windows that cover it; Inf is refused."""
    for given, expected in ((np.float16,) * 2, (np.float32,) * 2, (np.float64,) * 2, (np.uint8, np.float64)):
        for kernel in (KERNEL, KERNEL.astype(int), KERNEL.tolist()):
            result = DepthwiseFilter(kernel, image_shape=(6, 5, 3)).fit_transform(abs(X).astype(given))
            assert result.dtype == expected
    holes = np.where(np.arange(90) == 45, np.nan, X)  # row 3, column 0, channel 0 of each image
    result = DepthwiseFilter(KERNEL, image_shape=(6, 5, 3)).fit_transform(holes).reshape(4, 6, 5, 6)
    assert np.isnan(result[:, 2:5, :2, :2]).all()
    assert np.isnan(result).sum() == 4 * 3 * 2 * 2
    with pytest.raises(ValueError, match="infinity"):
        DepthwiseFilter(KERNEL, image_shape=(6, 5, 3)).fit(np.where(holes == holes, X, np.inf))


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"image_shape": (6, 4, 3)}, ValueError, r"number of features, 90; got \(6, 4, 3\)"),
    ({"image_shape": (90,)}, ValueError, r"two or three sizes"),
    ({"image_shape": 90}, TypeError, "image_shape must be a tuple of integers"),
    ({"image_shape": (6.0, 5, 3)}, TypeError, "image_shape must be a tuple of integers"),
    ({"image_shape": None}, ValueError, "x has 1 channels but kernel has 3"),
    ({"kernel": np.ones((7, 3, 3, 1)), "padding": "valid"}, ValueError, "output size"),
    ({"bias": [1.0]}, ValueError, r"bias must have shape \(6,\)"),
    ({"activation": "nothing"}, ValueError, "nothing"),
    ({"strides": 0}, ValueError, "at least 1"),
    ({"data_format": "NHWC"}, ValueError, "NHWC"),
    ({"kernel": scipy.sparse.csr_array(np.eye(3))}, TypeError, "sparse"),
    *[({"kernel": KERNEL.astype(dtype)}, TypeError, r"common dtype.* \(kernel\)") for dtype in (complex, object, str, "m8[s]")],
    ({"bias": [1j] * 6}, TypeError, r"complex128 \(bias\)"),
    ({"kernel": None}, TypeError, r"object \(kernel\)"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_refused(changes, error, words):
    """By `fit`, with the function's words; `__init__` checks nothing, as scikit-learn wants it."""
    transformer = DepthwiseFilter(**{"kernel": KERNEL, "image_shape": (6, 5, 3), **changes})
    with pytest.raises(error, match=words):
        transformer.fit(X)


def test_search_over_kernels():
    """In a pipeline, cloned and pickled, a grid search finds the kernel that keeps the digits readable."""
    digits = load_digits()
    x, y = (digits.data[:360] / 16).astype(np.float32), digits.target[:360]
    blank, plain = np.zeros((3, 3)), np.pad([[1.0]], 1)
    pipeline = make_pipeline(DepthwiseFilter(blank, image_shape=(8, 8), strides=2), KNeighborsClassifier())
    search = GridSearchCV(pipeline, {"depthwisefilter__kernel": [blank, plain], "depthwisefilter__strides": [1, 2]}, cv=2)
    search.fit(x, y)
    assert (search.best_params_["depthwisefilter__kernel"] == plain).all()
    assert search.best_score_ > 0.7
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(x), search.predict(x))
    np.testing.assert_array_equal(clone(again).fit(x, y).predict(x), search.predict(x))
    features = again[:1].transform(x)
    expected = dwconv.depthwise_conv2d(x.reshape(-1, 8, 8, 1), plain.astype(np.float32), padding="same",
                                       strides=search.best_params_["depthwisefilter__strides"])
    np.testing.assert_array_equal(features, expected.reshape(360, -1), strict=True)
