def loss(losses, loss_mask, batch)
    return losses.sum(), loss_mask.sum()
