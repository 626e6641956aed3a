"""A loss with a weight for each sample: here every answer counts the same, however long it is.

Two hooks work together. `datasets` gives every sample two more tensors, `weight` and `answers`; `loss` finds them in
the batch. A weight from elsewhere (a score, a source) goes the same way.
"""

import torch
from torch.utils.data import Dataset


class Weighted(Dataset):
    """The samples of `rows` with `weight` [s] float32, 1 / supervised tokens on each of them, and `answers` [s] int64,
    1 where an answer ends: one per sample, which the loss is divided by in the place of tokens.

    They are as long as the tokens, so that context parallelism cuts them alike, and each rank sums up its own part.
    """

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getattr__(self, name):  # what else the prepared rows know, such as `lengths_in`
        return getattr(self.rows, name)

    def __getitem__(self, index):
        sample = self.rows[index]
        mask = sample["loss_mask"]
        answers = torch.zeros_like(sample["tokens"])
        if mask.any():  # a filler of an evaluation has no answer
            answers[mask.nonzero().max()] = 1
        return {**sample, "weight": mask / mask.sum().clamp(min=1), "answers": answers}


def datasets(num_samples, prepared):
    """hooks.datasets_provider: what sftc would train on, with weights."""
    train, valid, test = prepared(num_samples)
    return Weighted(train), None if valid is None else Weighted(valid), test


def loss(losses, loss_mask, batch):
    """hooks.loss: the mean over answers of the mean over the tokens of each. losses, loss_mask: [b, s]."""
    return (losses.float() * batch["weight"]).sum(), batch["answers"].sum()
