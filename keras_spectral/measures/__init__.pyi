from .alignment import alignment as alignment
from .alpha_stable import (
    AlphaStableFit as AlphaStableFit,
    alpha_stable_density as alpha_stable_density,
    alpha_stable_tail as alpha_stable_tail,
    fit_alpha_stable as fit_alpha_stable,
    sample_alpha_stable as sample_alpha_stable,
)
from .certified_accuracy import (
    Certification as Certification,
    CertifiedRow as CertifiedRow,
    certified_radii as certified_radii,
    certify as certify,
)
from .complexity import (
    Complexity as Complexity,
    complexity_measures as complexity_measures,
)
from .cushions import (
    CushionRow as CushionRow,
    Cushions as Cushions,
    cushions as cushions,
)
from .distributions import (
    DistributionRow as DistributionRow,
    Distributions as Distributions,
)
from .eigenvalues import (
    EigenvalueFit as EigenvalueFit,
    fit_eigenvalues as fit_eigenvalues,
    random_edge as random_edge,
    squared_singular_values as squared_singular_values,
)
from .jacobians import (
    Gradients as Gradients,
    Linearization as Linearization,
)
from .kernel_norms import KernelNorms as KernelNorms
from .linear_mixture import (
    LinearMixture as LinearMixture,
    fit_linear_mixture as fit_linear_mixture,
)
from .lipschitz_bound import (
    LipschitzBound as LipschitzBound,
    LipschitzRow as LipschitzRow,
    lipschitz_bound as lipschitz_bound,
)
from .local_lipschitz import (
    SegmentRow as SegmentRow,
    jacobian_norms as jacobian_norms,
    segment_norms as segment_norms,
)
from .margins import (
    margin_loss as margin_loss,
    margins as margins,
)
from .noise import (
    NoiseSensitivity as NoiseSensitivity,
    noise_sensitivity as noise_sensitivity,
)
from .pairs import empirical_lipschitz as empirical_lipschitz
from .power_law import (
    ComparisonRow as ComparisonRow,
    GoodnessOfFit as GoodnessOfFit,
    PowerLawFit as PowerLawFit,
    compare_power_law as compare_power_law,
    fit_power_law as fit_power_law,
    goodness_of_fit as goodness_of_fit,
)
from .rank_correlation import (
    CorrelationRow as CorrelationRow,
    rank_correlation as rank_correlation,
)
from .spectrum import (
    Spectrum as Spectrum,
    SpectrumRow as SpectrumRow,
    spectrum as spectrum,
)
