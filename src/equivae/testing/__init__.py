"""The contract that every transform keeps, as functions to call: `check_transform`, `check_group`.

They search for an input that breaks a law and shrink it with hypothesis, which is no dependency of the
library: `pip install hypothesis`.
"""

from equivae.testing.cases import Case
from equivae.testing.checking import check_transform
from equivae.testing.errors import ContractError
from equivae.testing.groups import check_group
from equivae.testing.laws import LAWS

__all__ = ["LAWS", "Case", "ContractError", "check_group", "check_transform"]
