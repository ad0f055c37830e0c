"""Names for the array types that the signatures use."""

from typing import Any

import numpy as np
import numpy.typing as npt

Flat = npt.NDArray[np.float32]
"""All parameters of a model, or an update to them, as one contiguous float32 vector of shape (parameters,)."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sums = npt.NDArray[np.int64]
"""Fixed-point sums, shape (parameters,)."""

Bytes8 = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]
