from .analysis import (
    analyze_checkpoint as analyze_checkpoint,
    analyze_model as analyze_model,
)
from .analysis_rows import (
    Analysis as Analysis,
    AnalysisRow as AnalysisRow,
)
from .checkpoint_row import (
    SweepRow as SweepRow,
)
from .demo import (
    Demo as Demo,
    digits_classifier as digits_classifier,
    run_demo as run_demo,
)
from .sweep import (
    run_sweep as run_sweep,
)
