from pathlib import Path

from keras_spectral.zoo import registry

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"


def test_the_page_holds_the_registry():
    """To renew it: `python tests/zoo/test_docs.py`."""
    assert PAGE.read_text().endswith(f"<!-- table -->\n{registry.table()}\n")


if __name__ == "__main__":
    head, _ = PAGE.read_text().split("<!-- table -->")
    PAGE.write_text(f"{head}<!-- table -->\n{registry.table()}\n")
