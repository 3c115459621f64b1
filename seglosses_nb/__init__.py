"""Loss functions for image segmentation: derived, tested, compared.

Every loss is a pure function of ``(logits, target)`` and a module::

    from seglosses_nb import DiceLoss, dice_loss
"""

from ._version import __version__
from .checks import check_loss
from .contract import set_value_checks
from .distribution import BinaryCrossEntropy, CrossEntropy, binary_cross_entropy, cross_entropy
from .region import DiceLoss, dice_loss
from .registry import LOSSES, LossInfo, SegLoss, SpecialCase, get_loss, register
from .weights import class_counts, class_weights, pixel_weights, weights_from_counts

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "DiceLoss",
    "LossInfo",
    "SegLoss",
    "SpecialCase",
    "__version__",
    "binary_cross_entropy",
    "check_loss",
    "class_counts",
    "class_weights",
    "cross_entropy",
    "dice_loss",
    "get_loss",
    "pixel_weights",
    "register",
    "set_value_checks",
    "weights_from_counts",
]
