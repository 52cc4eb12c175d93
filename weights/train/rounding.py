"""Rounds the trunk's weights to int8, and moves its biases so that what rounding shifts on average is put back.

The engine computes the trunk in integers: int8 weights, 7-bit activations (see kernel/op8.go). Activations after a ReLU6
are mostly positive, so the rounding error of a weight shifts its output nearly alike in every cell. That part of the error
is known, since it can be measured on photos, and a bias takes it away. The first blocks need it most: they have few
weights, and everything that follows builds on them.
"""
import torch
import torch.nn.functional as F


def to_int8(weight):
    """Symmetric int8 per output channel with an f16 scale, back to float."""
    rows = weight.flatten(1)
    scale = (rows.abs().amax(1, keepdim=True) / 127).half().float().clamp_min(1e-8)
    return ((rows / scale).round().clamp(-127, 127) * scale).view_as(weight)


def to_bytes(x):
    """What a ReLU6 leaves, in 128 steps."""
    return torch.round(x * (127 / 6)) * (6 / 127)


def rows_to_bytes(x):
    """Every cell [B,C,H,W] in 128 steps between its own lowest and highest value."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    step = ((high - low) / 127).clamp_min(1e-12)
    return torch.round((x - low) / step) * step + low


@torch.no_grad()
def settle(trunk, photos):
    """Rounds the trunk in place; photos are normalised pixels [1,3,H,W]. The stem stays as it is: its products are float32."""

    def through(conv, exact, rounded, prepare=lambda x: x):
        """Both flows through a convolution, whose weights are rounded and whose bias is corrected on the way."""
        outputs = [conv(x) for x in exact]
        conv.weight.copy_(to_int8(conv.weight))
        inexact = [conv(prepare(x)) for x in rounded]
        cells = sum(y[0, 0].numel() for y in outputs)
        shift = sum((y - z).sum((0, 2, 3)) for y, z in zip(outputs, inexact)) / cells
        conv.bias.add_(shift)
        return outputs, [z + shift[:, None, None] for z in inexact]

    exact = [F.relu6(trunk.stem(x)) for x in photos]
    rounded = [to_bytes(x) for x in exact]
    for i, block in enumerate(trunk.blocks):
        before = exact, rounded
        if block.expanded:
            exact, rounded = through(block.expand, exact, rounded, rows_to_bytes)
            exact, rounded = [F.relu6(x) for x in exact], [to_bytes(F.relu6(x)) for x in rounded]
        exact, rounded = through(block.depthwise, exact, rounded)
        exact, rounded = [F.relu6(x) for x in exact], [to_bytes(F.relu6(x)) for x in rounded]
        exact, rounded = through(block.project, exact, rounded)
        if block.residual:
            exact, rounded = ([x + y for x, y in zip(a, b)] for a, b in zip(before, (exact, rounded)))
        error = sum(((x - y) ** 2).sum() for x, y in zip(exact, rounded)) / sum((x ** 2).sum() for x in exact)
        print(f"  block {i}: rounding is off by {error.sqrt().item():.3f} of the output", flush=True)
    through(trunk.head, exact, rounded, rows_to_bytes)
