"""Answers of the model to conversations of the validation rows: generated, compared and written down."""
