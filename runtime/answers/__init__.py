"""Answers of the model to conversations of the validation rows: generated, compared with the references, written down."""
