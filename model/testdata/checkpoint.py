"""Runs transformers on a checkpoint of any size and keeps what it says, for the test that compares it with ours:

    python checkpoint.py FOLDER [mask2former|maskformer [ENCODER]]
    python checkpoint.py FOLDER mask2former torchvision
    python checkpoint.py FOLDER mask2former ViT-L/14
    PMP_CHECKPOINT=FOLDER go test ./model -run TestCheckpoint -v

FOLDER has what save_pretrained writes. With a name the folder is filled first, with a network of the usual size (100 queries,
ResNet-50 unless ENCODER is another one of ENCODERS) and random weights. FOLDER/expected.safetensors is made in 32 bits, of a picture of SIZE that is not resized.
"torchvision" leaves a ResNet-50 of torchvision in FOLDER/backbone.pth too, and what is expected is what the network says with that
one in the place of its own. "ViT-L/14" (or "ViT-B/16") leaves a CLIP of transformers with random weights in FOLDER/clip, and what is expected is
how that one names the masks of twelve queries.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import (AutoConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, MaskFormerConfig, MaskFormerDetrConfig,
                          MaskFormerForInstanceSegmentation, ResNetConfig, SwinConfig)
from transformers.modeling_outputs import BackboneOutput

from streams import fixture, picture, sampled

SIZE = 320, 256                                       # width and height; TestCheckpoint has all three, too
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MODELS = {"mask2former": Mask2FormerForUniversalSegmentation, "maskformer": MaskFormerForInstanceSegmentation}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}


def swin(width, heads, deep, window):
    return SwinConfig(embed_dim=width, num_heads=[heads << i for i in range(4)], depths=[2, 2, deep, 2], window_size=window, **STAGES)


ENCODERS = {"resnet": ResNetConfig(**STAGES),
            "resnet-18": ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], **STAGES),
            "swin-tiny": swin(96, 3, 6, 7), "swin-small": swin(96, 3, 18, 7),
            "swin-base": swin(128, 4, 18, 12), "swin-large": swin(192, 6, 18, 12)}


def loosen(model):
    """What initialisation leaves at 0 and 1 would hide mistakes."""
    for key, x in model.state_dict().items():
        last = key.rsplit(".", 1)[-1]
        if last == "running_var":
            x.uniform_(0.5, 1.5)
        elif last == "relative_position_bias_table":
            x.uniform_(-1, 1)
        elif x.is_floating_point() and x.dim() == 1 and "criterion" not in key:
            x.copy_(torch.rand_like(x) * 0.4 + (0.8 if last == "weight" else -0.2))


def make(folder, name, encoder="resnet", queries=100):
    torch.manual_seed(1)
    backbone = ENCODERS[encoder]
    config = Mask2FormerConfig(backbone_config=backbone, num_labels=133, num_queries=queries) if name == "mask2former" else \
        MaskFormerConfig(backbone_config=backbone, decoder_config=MaskFormerDetrConfig(), num_labels=150)
    model = MODELS[name](config)
    loosen(model)
    model.save_pretrained(folder)


def torchvision_backbone(folder):
    """The maps of a ResNet-50 of torchvision, whose state dict stays in a folder, as transformers wants them of a backbone."""
    from torchvision.models import resnet50
    from torchvision.models._utils import IntermediateLayerGetter
    classifier = resnet50(weights=None)
    loosen(classifier)
    torch.save(classifier.state_dict(), folder / "backbone.pth")
    body = IntermediateLayerGetter(classifier.eval(), {f"layer{i}": str(i) for i in range(1, 5)})
    body.forward = lambda x, **_: BackboneOutput(feature_maps=tuple(IntermediateLayerGetter.forward(body, x).values()))
    return body


def keep(model):
    """What a network says of a picture."""
    out = model(pixel_values=torch.from_numpy((picture("checkpoint", *SIZE) / 255.0 - MEAN) / STD).float().permute(2, 0, 1)[None])
    classes, masks = out.class_queries_logits[0], out.masks_queries_logits[0]
    sampled("class", classes.double())
    sampled("scores", torch.einsum("qc,qhw->chw", classes.softmax(-1)[:, :-1], masks.sigmoid()).flatten(1).double())


def add_clip(folder, model, vit):
    """What a CLIP, which stays in a folder with its merges, says of the masks of a network."""
    from ovseg import PROMPTS, run_clip, whole_clip
    clip, words, merges = whole_clip(vit)
    loosen(clip)
    clip.save_pretrained(folder / "clip")
    (folder / "clip" / "merges.txt").write_text(merges, encoding="utf-8")
    threshold = run_clip(model, clip, words, {"checkpoint": SIZE})
    for key, value in {"threshold": str(threshold), "prompts": "\n".join(PROMPTS)}.items():
        fixture[key] = np.frombuffer(value.encode(), np.uint8)


folder = Path(sys.argv[1])
replaced, vit = sys.argv[3:] == ["torchvision"], "".join(sys.argv[3:]) if sys.argv[3:] in (["ViT-B/16"], ["ViT-L/14"]) else ""
if vit:
    make(folder, sys.argv[2], queries=12)
elif len(sys.argv) > 2:
    make(folder, *sys.argv[2:4 - replaced])
model = MODELS[AutoConfig.from_pretrained(folder).model_type].from_pretrained(folder).eval()
if replaced:
    model.model.pixel_level_module.encoder = torchvision_backbone(folder)
with torch.no_grad():
    if vit:
        add_clip(folder, model, vit)
    else:
        keep(model)
save_file(fixture, folder / "expected.safetensors")
print({k: v[1:].tolist() for k, v in fixture.items() if k.endswith("#")})
