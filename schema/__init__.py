"""JSON schemas and the tables of Megatron options. Data only."""
