from .augmentation import (
    crop_and_flip as crop_and_flip,
)
from .loading import (
    load as load,
    names as names,
)
from .splits import (
    Data as Data,
    Provenance as Provenance,
    Split as Split,
)
