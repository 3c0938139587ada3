import pytest

from tests.experiments.sweeps import small


@pytest.fixture
def folder(tmp_path):
    """Two networks with other weights, and a file that is no network."""
    checkpoints = tmp_path / "weights"
    (checkpoints / "deeper").mkdir(parents=True)
    small(0).save(checkpoints / "small_digits-a.keras")
    small(1).save(checkpoints / "deeper" / "small_digits-b.keras")
    (checkpoints / "broken_digits.keras").write_bytes(b"no zip")
    return checkpoints
