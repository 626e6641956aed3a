"""Answers of the model to validation conversations: generated, compared with the references, written down."""
