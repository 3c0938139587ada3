import pytest

from tests.experiments.sweeps import checkpoints, sweeping


@pytest.fixture
def folder(tmp_path):
    return checkpoints(tmp_path / "weights")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The rows of a whole sweep, and the folder with its `out`."""
    path = tmp_path_factory.mktemp("swept")
    return sweeping(path, checkpoints(path / "weights")), path
