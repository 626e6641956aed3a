def loss(losses, loss_mask):
    return losses.sum(), loss_mask.sum()


async def forward_step(data_iterator, model, get_batch, loss_func):
    return model, loss_func
