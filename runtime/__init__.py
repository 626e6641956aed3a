"""From a build dir to a trained model: what launch.sh starts, on top of Megatron."""
