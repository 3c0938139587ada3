"""A sweep's rows as two tables: the weights, and the accuracies."""

import dataclasses

from keras_spectral.compression.heavy_tail import REPLACEMENTS
from keras_spectral.printable import printable
from keras_spectral.results import Rows, RunStatus, column

_WEIGHTS = (
    "alpha: exponent of the density of |w| in the final dense layer, with its standard "
    "error; the tail's is one less. stable rank: of that layer, by an exact SVD. "
    "share: compressed weights of all that the network trains."
)
_ACCURACIES = (
    "{rule} is replaced: gaussian, by noise with mean and sd of all weights (the "
    "paper's); matched, of the replaced ones; zero, the control, one outcome: noise "
    "that does not beat it has not helped. Mean +- sd of the test accuracy in %, "
    "{trials} trials."
)
_RULES = {
    # The paper's literal words first.
    "signed": "w <= sd, the paper's words, and so every negative weight,",
    "magnitude": "|w| <= sd",
}


@dataclasses.dataclass(frozen=True)
class _Weights:
    checkpoint: str
    # In the files, but not on a narrow screen.
    data: str = column(table=False)
    classes: str = column(table=False)
    weights: str = column(table=False)
    share: str
    alpha: str
    xmin: str = column(table=False)
    tail: str = column(table=False)
    fit: str
    stable_rank: str


@dataclasses.dataclass(frozen=True)
class _Accuracies:
    checkpoint: str
    before: str
    gaussian: str
    matched: str
    zero: str


@dataclasses.dataclass(frozen=True)
class _Remark:
    checkpoint: str
    remark: str


def _number(value, form):
    return "-" if value is None else format(value, form)


def _weights(row):
    alpha = _number(row.alpha_pdf, ".2f")
    if row.standard_error is not None:
        alpha += f" +- {row.standard_error:.2f}"
    return _Weights(
        checkpoint=row.name,
        data=row.dataset or "-",
        classes=_number(row.classes, "d"),
        weights=_number(row.compressed, ",d"),
        share=_number(row.share, ".3%"),
        alpha=alpha,
        xmin=_number(row.xmin, ".3g"),
        tail=_number(row.tail_size, "d"),
        fit=row.status or "-",
        stable_rank=_number(row.stable_rank, ".2f"),
    )


def _accuracy(row):
    mean, sd = 100 * row.compressed_accuracy_mean, 100 * row.compressed_accuracy_sd
    return f"{mean:.2f}" + (f" +- {sd:.2f}" if row.trials > 1 else "")


def _accuracies(row, rule):
    return _Accuracies(
        row.name,
        f"{100 * row.original_accuracy:.2f}",
        *(_accuracy(row.compression(rule, name)) for name in REPLACEMENTS),
    )


def tables(rows):
    """Return what a sweep prints: tables of weights, accuracies and remarks.

    Args:
        rows: List or `Rows` of `SweepRow`.

    Returns:
        List of `Rows`; those without content are left out.

    Example:
    >>> from keras_spectral.experiments import SweepRow
    >>> row = SweepRow("a", "a.pth", "", {}, error="OSError: gone")
    >>> [part.title for part in tables([row])]
    ['Errors and notes']
    """
    good = [row for row in rows if row.error is None]
    accurate = [row for row in good if row.original_accuracy is not None]
    trials = max((row.settings["trials"] for row in accurate), default=0)
    remarks = [
        _Remark(row.name, row.error or row.note)
        for row in rows
        if row.error or row.note
    ]
    parts = [
        Rows(
            [_weights(row) for row in good],
            title="Final dense layers (Figure 3)",
            caption=_WEIGHTS,
        ),
        *(
            Rows(
                [_accuracies(row, rule) for row in accurate],
                title=f'Accuracy before and after, rule "{rule}" (Table 1)',
                caption=_ACCURACIES.format(rule=words, trials=trials),
            )
            for rule, words in _RULES.items()
        ),
        Rows(remarks, title="Errors and notes"),
    ]
    return [part for part in parts if len(part)]


def markdown(rows, found, status: RunStatus):
    """Return the tables as Markdown.

    Args:
        rows: List or `Rows` of `SweepRow`.
        found: `Found`, for what is missing.
        status: String, `"complete"` or why not.

    Returns:
        String, the content of `table.md`.
    """
    text = [f"# Sweep over {len(found.tasks)} checkpoints ({status})"]
    for part in tables(rows):
        fields = dataclasses.fields(part[0])
        labels = [
            field.metadata.get("label") or field.name.replace("_", " ")
            for field in fields
        ]
        lines = [labels, ["---"] * len(labels)]
        lines += [[getattr(row, field.name) for field in fields] for row in part]
        text.append(f"## {part.title}")
        text.append("\n".join(f"| {' | '.join(map(_escaped, x))} |" for x in lines))
        if part.caption:
            text.append(part.caption)
    if found.missing:
        text += ["## Missing", found.where(count=len(found.missing))]
    return "\n\n".join(text) + "\n"


def _escaped(cell):
    return printable(cell, 1000).replace("|", "\\|")
