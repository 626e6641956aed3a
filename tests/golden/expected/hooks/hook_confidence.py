"""How sure the model is of what it is taught."""

import math


def metrics(losses, loss_mask, batch):
    """hooks.metrics: the share of supervised tokens that the model gives a probability of more than one half, and their
    mean loss in bits. losses: [b, s] in nats.
    """
    count = loss_mask.sum()
    sure = ((losses < math.log(2)) * loss_mask).sum()
    return {"sure": (sure, count), "bits": ((losses * loss_mask).sum() / math.log(2), count)}
