"""`DepthwiseFilter`: the depthwise convolution as a transformer of scikit-learn, for a `Pipeline` and a `GridSearchCV`.

scikit-learn's X has a sample in each row and a feature in each column, so that an image is a row and `image_shape` tells how it
is folded.  The filters are given, not learned: a search is one over kernels.  Refused here: sparse matrices, infinities, and
arrays of images, which `dwconv.depthwise_conv2d` takes as they are.  Needs the extra `sklearn`.
"""

import math

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('dwconv.sklearn needs scikit-learn 1.6 or newer: pip install "dwconv[sklearn]"') from error

from . import _plan
from ._arrays import as_array, common_dtypes
from .functional import depthwise_conv2d

__all__ = ["DepthwiseFilter"]


class DepthwiseFilter(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Filters images that are rows of X, each channel with its own filters: `dwconv.depthwise_conv2d` as a transformer.

    Parameters
    ----------
    kernel : array_like, shape (kh, kw), (kh, kw, C) or (kh, kw, C, M)
        The filters, used in the dtype of X.
    bias : array_like, shape (C*M,), optional
        Added to the output channels.
    image_shape : tuple of int, optional
        (H, W) or (H, W, C), for channels_first (C, H, W): the image that a row of X holds in C order.  By default a row is
        an image of one row and one channel, (1, n_features, 1), as for signals and spectra.
    strides, padding, dilation_rate, data_format, activation
        As in `dwconv.depthwise_conv2d`, but that `padding` is "same" by default: as many pixels out as in.

    Attributes
    ----------
    n_features_in_ : int
        Features of X: pixels times channels.
    feature_names_in_ : ndarray of str
        Their names, where X had some.
    output_shape_ : tuple of int
        The image that a row of the result holds, (OH, OW, C*M) or (C*M, OH, OW).

    Raises
    ------
    ValueError, TypeError
        By `fit` and `transform`, as `dwconv.depthwise_conv2d` does; ValueError also where `image_shape` has not as many
        elements as X has features.

    Notes
    -----
    The result has the dtype of X where that is float16, float32 or float64, else it is float64.  NaN is allowed and reaches
    the outputs whose windows cover it; infinities are refused, as most of scikit-learn does.

    Examples
    --------
    >>> import numpy as np
    >>> from dwconv.sklearn import DepthwiseFilter
    >>> rows = np.arange(18.0).reshape(2, 9)
    >>> DepthwiseFilter(np.ones((2, 2)), image_shape=(3, 3), padding="valid").fit_transform(rows)
    array([[ 8., 12., 20., 24.],
           [44., 48., 56., 60.]])

    Which filter serves a classifier best is a search over kernels::

        pipeline = make_pipeline(DepthwiseFilter(blur, image_shape=(8, 8)), KNeighborsClassifier())
        GridSearchCV(pipeline, {"depthwisefilter__kernel": [blur, sharpen, sobel]}).fit(X, y)
    """

    def __init__(self, kernel, *, bias=None, image_shape=None, strides=1, padding="same", dilation_rate=1,
                 data_format="channels_last", activation=None):
        self.kernel = kernel
        self.bias = bias
        self.image_shape = image_shape
        self.strides = strides
        self.padding = padding
        self.dilation_rate = dilation_rate
        self.data_format = data_format
        self.activation = activation

    def fit(self, X, y=None):
        """Check the options against X and learn the shape of the results.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            Images as rows.
        y : ignored

        Returns
        -------
        DepthwiseFilter
            Itself.
        """
        X = self._validated(X, reset=True)
        self.output_shape_ = self._filtered(X[:1]).shape[1:]
        self._n_features_out = math.prod(self.output_shape_)  # what get_feature_names_out counts
        return self

    def transform(self, X):
        """The filtered images.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            Images as rows.

        Returns
        -------
        ndarray, shape (n_samples, n_outputs)
            Filtered images as rows; `output_shape_` folds them.
        """
        check_is_fitted(self)
        images = self._filtered(self._validated(X, reset=False))
        return images.reshape(len(images), -1)

    def _validated(self, X, reset):
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32, np.float16], ensure_all_finite="allow-nan")

    def _filtered(self, X):
        """The images in the rows of X, filtered: (n_samples, *output_shape_)."""
        shape = (1, X.shape[1]) if self.image_shape is None else _plan.sizes("image_shape", self.image_shape)
        if len(shape) == 2:
            shape = (1, *shape) if self.data_format == "channels_first" else (*shape, 1)
        if len(shape) != 3 or math.prod(shape) != X.shape[1]:
            raise ValueError(f"image_shape must have two or three sizes whose product is the number of features, {X.shape[1]}; "
                             f"got {self.image_shape!r:.80}")
        kernel, bias = as_array("kernel", self.kernel), None if self.bias is None else as_array("bias", self.bias)
        common_dtypes((X, kernel) if bias is None else (X, kernel, bias), ("X", "kernel", "bias"))  # a cast refuses less
        kernel, bias = kernel.astype(X.dtype), None if bias is None else bias.astype(X.dtype)
        return depthwise_conv2d(X.reshape(-1, *shape), kernel, bias, strides=self.strides, padding=self.padding,
                                dilation_rate=self.dilation_rate, data_format=self.data_format, activation=self.activation)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags
