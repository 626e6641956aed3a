"""The only package that knows Megatron's versions: what it is called, how it is started, what is mended in it."""

from .arguments import parse, read_argument_file, require_layers, require_target
from .board import write_scores
from .compiled import summary as compilations
from .inprocess import Attempt, hide_old_saving, is_interruption, require_extension, restarting
from .loading import load_weights
from .model import Adapt, FirstWeights, Model
from .news import Asking, Flops, Observer, Step
from .parameters import Slot
from .stopping import reason as stopped_by
from .training import train

hide_old_saving()

__all__ = [
    "Adapt",
    "Asking",
    "Attempt",
    "FirstWeights",
    "Flops",
    "Model",
    "Observer",
    "Slot",
    "Step",
    "compilations",
    "is_interruption",
    "load_weights",
    "parse",
    "read_argument_file",
    "require_extension",
    "require_layers",
    "require_target",
    "restarting",
    "stopped_by",
    "train",
    "write_scores",
]
