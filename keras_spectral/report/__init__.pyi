from .analysis_figures import (
    analysis_figure as analysis_figure,
)
from .figures import (
    compression_figure as compression_figure,
    demo_figure as demo_figure,
    save as save,
)
from .gan_figures import (
    distribution_figure as distribution_figure,
)
from .heavy_tail_figures import (
    figure_1 as figure_1,
    figure_2 as figure_2,
    figure_3 as figure_3,
    stable_rank_mixture as stable_rank_mixture,
)
from .pages import (
    page as page,
    page_of_files as page_of_files,
)
from .recipe_figures import (
    recipe_figure as recipe_figure,
)
