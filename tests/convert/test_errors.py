"""An error about a checkpoint names the file once, and has its reason as data."""

import pickle

import numpy as np
import pytest

from keras_spectral import convert
from keras_spectral.convert import CheckpointError, UnsafeCheckpointError
from keras_spectral.experiments import analyze_checkpoint


@pytest.fixture
def damaged(tmp_path):
    """A file whose tensor `b` is found to be damaged when it is read."""
    path = tmp_path / "w.npz"
    np.savez(path, a=np.eye(3), b=np.arange(10_000.0).reshape(100, 100))
    content, last = path.read_bytes(), np.float64(9999).tobytes()
    assert content.count(last) == 1
    path.write_bytes(content.replace(last, np.float64(1).tobytes()))
    return path


@pytest.mark.parametrize(
    "read",
    [
        lambda state: state["b"],
        lambda state: state.stored("b"),
        lambda state: state.count("b"),
        lambda state: state.fingerprint(),
    ],
)
def test_whatever_reads_a_damaged_tensor_says_which_and_where(damaged, read):
    state = convert.read_checkpoint(damaged)
    with pytest.raises(CheckpointError) as error:
        read(state)
    assert str(error.value) == f"{damaged} {error.value.reason}"
    assert error.value.reason.startswith("is damaged (Bad CRC-32")
    assert error.value.reason.endswith(", at `b`.")


def test_a_skipped_tensors_reason_is_without_the_file(damaged):
    reasons = analyze_checkpoint(damaged).skipped
    assert reasons["b"].startswith("is damaged") and reasons["b"].endswith("at `b`.")


def test_an_error_survives_another_process():
    error = pickle.loads(pickle.dumps(UnsafeCheckpointError("is odd", "w.pth")))
    assert (str(error), error.reason) == ("w.pth is odd", "is odd")
    assert isinstance(error, UnsafeCheckpointError)
