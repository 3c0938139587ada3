from .cards import (
    load_model as load_model,
    provenance as provenance,
    save_model as save_model,
)
from .comparison import (
    TensorDifference as TensorDifference,
    compare as compare,
    is_keras_model as is_keras_model,
)
from .files.errors import (
    CheckpointError as CheckpointError,
    MismatchError as MismatchError,
    UnsafeCheckpointError as UnsafeCheckpointError,
)
from .files.reader import (
    read_checkpoint as read_checkpoint,
)
from .files.state import (
    StateDict as StateDict,
)
from .torch_export import (
    to_torch as to_torch,
)
from .torch_weights import (
    from_torch as from_torch,
)
