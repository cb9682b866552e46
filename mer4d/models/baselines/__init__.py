"""Networks to compare with on the same folds, each run by a configuration in configs/baselines."""

from mer4d.models.baselines.linear import LinearOnGrid
from mer4d.models.baselines.off_apexnet import OffApexNet
from mer4d.models.baselines.prior import ConstantPredictor, PriorRandom
from mer4d.models.baselines.rcn import RCNA
from mer4d.models.baselines.resnet import SmallResNet
from mer4d.models.baselines.single_view import SingleViewNetwork, optical_strain
from mer4d.models.baselines.ststnet import STSTNet

__all__ = [
    "RCNA",
    "ConstantPredictor",
    "LinearOnGrid",
    "OffApexNet",
    "PriorRandom",
    "STSTNet",
    "SingleViewNetwork",
    "SmallResNet",
    "optical_strain",
]
