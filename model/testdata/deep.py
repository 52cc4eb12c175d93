"""Makes deep.safetensors: what PyTorch says of a small Mask2Former on a ResNet that begins with three convolutions, as detectron2 has it.

    python deep.py

Mask2Former is that of transformers, which has no such ResNet; it is written down here, with detectron2's names.
"""
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F
from transformers import ResNetConfig
from transformers.modeling_outputs import BackboneOutput

import fcclip
from base import HERE, LABELS, MARGIN, MEAN, PICTURES, STAGES, STD, mask2former, rows
from fcclip import ENCODER, PREDICTOR, fill, head_name, numbers, weights
from streams import fixture, picture, sampled, uniform

WIDTHS, DEPTHS, GRID = [32, 64, 96, 160], [2, 1, 1, 3], [1, 2, 4]    # dilations of the last stage


class Conv(nn.Conv2d):
    """A convolution and the norm behind it."""

    def __init__(self, channels, out, size, stride=1, dilation=1):
        super().__init__(channels, out, size, stride, size // 2 * dilation, dilation, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x):
        return self.norm(super().forward(x))


class Block(nn.Module):
    def __init__(self, channels, out, stride, dilation):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = Conv(channels, out // 4, 1), Conv(out // 4, out // 4, 3, stride, dilation), Conv(out // 4, out, 1)
        self.shortcut = Conv(channels, out, 1, stride) if stride > 1 or channels != out else nn.Identity()

    def forward(self, x):
        return F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, width, widths=WIDTHS, depths=DEPTHS):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1, self.stem.conv2, self.stem.conv3 = Conv(3, width // 2, 3, 2), Conv(width // 2, width // 2, 3), Conv(width // 2, width, 3)
        for i, (out, depth) in enumerate(zip(widths, depths)):
            blocks = []
            for j in range(depth):
                blocks.append(Block(width, out, 2 if i > 0 and j == 0 else 1, GRID[j] if i == 3 else 1))
                width = out
            self.add_module(f"res{i + 2}", nn.Sequential(*blocks))

    def forward(self, x, **_):
        for conv in (self.stem.conv1, self.stem.conv2, self.stem.conv3):
            x = F.relu(conv(x))
        x, maps = F.max_pool2d(x, 3, 2, 1), []
        for stage in (self.res2, self.res3, self.res4, self.res5):
            x = stage(x)
            maps.append(x)
        return BackboneOutput(feature_maps=tuple(maps))


@torch.no_grad()
def main():
    fcclip.draw = lambda key, *spread: uniform(f"deep/{key}", *spread)
    model = mask2former(ResNetConfig(hidden_sizes=WIDTHS, out_features=STAGES)).double().eval()
    model.model.pixel_level_module.encoder = ResNet(32).double().eval()
    fill(model, lambda k: k.replace(ENCODER, "backbone.") if k.startswith(ENCODER) else head_name(k))
    for part in ("weight", "bias"):
        p = getattr(model.class_predictor, part)
        p.copy_(numbers(f"{PREDICTOR}class_embed.{part}", p.shape))
    for case, (width, height) in PICTURES.items():
        x = torch.from_numpy((picture(case, width, height) / 255.0 - MEAN) / STD).permute(2, 0, 1)[None]
        steering = []
        hook = model.model.transformer_module.decoder.mask_predictor.register_forward_hook(
            lambda _, args, out: steering.append(F.interpolate(out[0], size=args[2], mode="bilinear", align_corners=False)))
        out = model(pixel_values=x)
        hook.remove()
        for stride, f in zip((4, 8, 16, 32), model.model.pixel_level_module.encoder(x).feature_maps):
            sampled(f"{case}/f{stride}", rows(f))
        sampled(f"{case}/class", out.class_queries_logits[0])
        scores = torch.einsum("qc,qhw->chw", out.class_queries_logits[0].softmax(-1)[:, :-1], out.masks_queries_logits[0].sigmoid())
        sampled(f"{case}/scores", scores.flatten(1))
        for i, logits in enumerate(steering[:-1]):
            margin = (logits.abs().min() / logits.std()).item()
            print(case, i, "blocks", round((logits < 0).double().mean().item(), 2), "margin", margin)
            assert margin > MARGIN, "change SALT"
    fixture["names"] = np.frombuffer("\n".join(" ".join([k, "F32", *map(str, x.shape)]) for k, x in sorted(weights.items())).encode(), np.uint8)
    fixture["labels"] = np.frombuffer("\n".join(LABELS).encode(), np.uint8)
    save_file(fixture, HERE / "deep.safetensors")
    print("bytes", (HERE / "deep.safetensors").stat().st_size, "tensors", len(weights))


if __name__ == "__main__":
    main()
