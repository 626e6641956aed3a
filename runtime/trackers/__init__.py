"""Services that a run is watched with, when the recipe asks for them: W&B and MLflow.

Megatron has a W&B writer of its own. It knows no run to go on with: each restart would begin another one. And it has
none for MLflow. These here follow metrics.jsonl.
"""

from .asked import following, require

__all__ = ["following", "require"]
