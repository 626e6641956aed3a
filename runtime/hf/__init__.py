"""Hugging Face model directories: read into Megatron's ranks, and written from Megatron's checkpoints."""
