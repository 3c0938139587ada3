__version__: str

from . import (
    callbacks as callbacks,
    compression as compression,
    constraints as constraints,
    convert as convert,
    data as data,
    experiments as experiments,
    gan as gan,
    layers as layers,
    linalg as linalg,
    losses as losses,
    measures as measures,
    models as models,
    regularizers as regularizers,
    report as report,
    surgery as surgery,
    theory as theory,
    zoo as zoo,
)
from .kernel_settings import (
    constrain as constrain,
    regularize as regularize,
)
from .layers import (
    restart_power_iteration as restart_power_iteration,
)
from .surgery import (
    unwrap as unwrap,
    wrap as wrap,
)
