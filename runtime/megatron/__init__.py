"""The only package that knows Megatron's versions: what it is called, how it is started, what is mended in it."""

from .arguments import parse, read_argument_file, require_layers, require_target
from .board import write_scores
from .compiled import summary as compilations
from .loading import load_weights
from .model import Adapt, FirstWeights, LayerSpec
from .news import Asking, Flops, Observer, Step
from .parameters import Slot
from .stopping import reason as stopped_by
from .training import train

__all__ = [
    "Adapt",
    "Asking",
    "FirstWeights",
    "Flops",
    "LayerSpec",
    "Observer",
    "Slot",
    "Step",
    "compilations",
    "load_weights",
    "parse",
    "read_argument_file",
    "require_layers",
    "require_target",
    "stopped_by",
    "train",
    "write_scores",
]
