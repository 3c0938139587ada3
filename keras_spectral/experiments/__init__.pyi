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
from .cells import (
    CellRow as CellRow,
)
from .recipe_run import (
    run_recipe as run_recipe,
)
from .recipe_table import (
    ClaimRow as ClaimRow,
    RecipeRow as RecipeRow,
    RecipeTable as RecipeTable,
)
from .recipe_settings import (
    Recipe as Recipe,
)
from .recipes import (
    list_recipes as list_recipes,
    load_recipe as load_recipe,
)
from .sweep import (
    run_sweep as run_sweep,
)
