"""What comparisons with the reference frameworks' networks look at."""


def geometry(layer):
    return layer.stride, layer.padding, layer.dilation, layer.groups, layer.kernel_size


def shapes(values):
    """By name, but for the numbers of batches, which one side may lack."""
    return {k: v.shape for k, v in values.items() if not k.endswith("num_batches_tracked")}
