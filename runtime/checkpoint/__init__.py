"""Where a run starts from, read off Megatron's checkpoint directories."""
