from .weights import (
    LeftOut as LeftOut,
    Weight as Weight,
    Weights as Weights,
    weights as weights,
)
