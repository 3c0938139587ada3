"""The control of a small file: all matrices rounded, and nothing else done."""

import numpy as np

from keras_spectral.compression import coding
from keras_spectral.compression.masks import as_numpy, is_float
from keras_spectral.models.copying import copy_model
from keras_spectral.validation import check_choice


def round_weights(model, values="int8"):
    """Return a copy of a model whose matrices and convolutions are rounded.

    What any tool does without a thought: a compressed file that is not smaller than
    this, or not more accurate, has gained nothing. `save_compressed` tells its bytes.

    Args:
        model: A built `keras.Model`, which stays as it is.
        values: `"int8"` (one scale a tensor, largest / 127), `"float16"`,
            `"bfloat16"` or `"float32"`.

    Returns:
        A `keras.Model`; vectors such as biases are as they were.

    Raises:
        ValueError: On another type, or values beyond its range.

    Example:
    >>> import keras
    >>> dense = keras.layers.Dense(2, kernel_initializer="identity")
    >>> copy = round_weights(keras.Sequential([keras.Input((2,)), dense]))
    >>> keras.ops.convert_to_numpy(copy.layers[0].kernel).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_choice("values", values, coding.VALUES)
    copy = copy_model(model)
    for variable in copy.weights:
        array = as_numpy(variable)
        if array.ndim < 2 or not is_float(array):
            continue
        try:
            narrow, scale = coding.encode_values(array.ravel(), values)
        except ValueError as error:
            raise ValueError(
                f"`values` must be a type for all weights: those of '{variable.path}' "
                f"{error}. Received: values={values!r}. bfloat16 has float32's range."
            ) from error
        wide = coding.decode_values(narrow, scale, array.dtype.name)
        variable.assign(np.reshape(wide, array.shape))
    return copy
