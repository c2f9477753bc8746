"""Makes any network smaller and, measurably, faster: sparsify, density, plan, resize, distill, report."""

from .compensate import Moments, compensate, input_moments, least_missed
from .cost import Cost, conditions, costs, parameters
from .coupling import couple
from .density import Density, density
from .dhspg import DHSPG
from .distill import distill, distill_features, fade, features
from .groups import Coupling, CouplingError, Group, Member, inside
from .hesso import HESSO
from .hspg import HSPG
from .obproxsg import OBProxSG, lambda_for
from .permutation import check_groups, unobserved
from .plan import Plan, plan
from .report import Measured, report, table
from .resize import rebuild, resize, widths
from .sensitivity import sensitivity
from .slicing import choose, magnitude, slice_channels, taylor
from .sparsify import sparsifier, zero_share
from .units import Units, of_groups

__all__ = [
    "DHSPG",
    "HESSO",
    "HSPG",
    "Cost",
    "Coupling",
    "CouplingError",
    "Density",
    "Group",
    "Measured",
    "Member",
    "Moments",
    "OBProxSG",
    "Plan",
    "Units",
    "check_groups",
    "choose",
    "compensate",
    "conditions",
    "costs",
    "couple",
    "density",
    "distill",
    "distill_features",
    "fade",
    "features",
    "input_moments",
    "inside",
    "lambda_for",
    "least_missed",
    "magnitude",
    "of_groups",
    "parameters",
    "plan",
    "rebuild",
    "report",
    "resize",
    "sensitivity",
    "slice_channels",
    "sparsifier",
    "table",
    "taylor",
    "unobserved",
    "widths",
    "zero_share",
]
