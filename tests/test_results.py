import dataclasses
import json
import math

import numpy as np

from keras_spectral.results import Rows


@dataclasses.dataclass
class Row:
    name: str
    value: float
    share: float = dataclasses.field(metadata={"format": ".1%", "label": "part"})
    hidden: tuple = dataclasses.field(default=(), metadata={"table": False})


ROWS = Rows(
    [Row("a", 1.25, 0.5, (1, 2)), Row("b", math.nan, np.float32(0.25), (np.int64(3),))],
    title="Title",
    caption="Caption",
)


def test_frame_json_and_table_agree():
    assert len(ROWS) == 2 and ROWS[0].name == "a" and [r.name for r in ROWS] == [*"ab"]
    rows = json.loads(ROWS.to_json())
    assert rows[0] == {"name": "a", "value": 1.25, "share": 0.5, "hidden": [1, 2]}
    assert rows[1]["value"] is None and rows[1]["hidden"] == [3]
    assert ROWS.to_frame()["value"].isna().tolist() == [False, True]
    text = str(ROWS)
    for part in ("Title", "Caption", "part", "50.0%", "1.25", "-"):
        assert part in text
    assert "hidden" not in text


def test_infinity_is_null_and_no_rows_print():
    assert json.loads(Rows([Row("a", math.inf, 0.0)]).to_json())[0]["value"] is None
    assert Rows([], title="Nothing").to_json() == "[]"
    assert "Nothing" in str(Rows([], title="Nothing"))
