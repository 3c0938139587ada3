from pathlib import Path

from tests.convert import corpus

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def table():
    outcomes = {}
    for name, (_, outcome, _) in corpus.files().items():
        outcomes.setdefault(outcome, []).append(name)
    rows = [
        f"| {outcome} | {', '.join(names)} |" for outcome, names in outcomes.items()
    ]
    return "\n".join(["| outcome | files |", "|---|---|", *rows])


def test_the_page_holds_the_corpus():
    """To renew it: `python -m tests.convert.test_docs`."""
    assert PAGE.read_text().endswith(f"<!-- table -->\n{table()}\n")


if __name__ == "__main__":
    head, _ = PAGE.read_text().split("<!-- table -->")
    PAGE.write_text(f"{head}<!-- table -->\n{table()}\n")
