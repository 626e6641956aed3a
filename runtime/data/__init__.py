"""Rows to training samples: reader, formats, chat template, mask, store, dataset. Only `dataset` imports torch."""
