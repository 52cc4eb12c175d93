"""Makes the fixtures of the networks of public checkpoints: what transformers says of them with random weights.

    python base.py [NAME]

Their configurations are small, but all parts are there. A fixture also lists the checkpoint's tensors, so that the Go test
can make the very folder that save_pretrained would write. Everything runs in 64-bit floats, as in make.py.
"""
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import (Mask2FormerConfig, Mask2FormerForUniversalSegmentation, MaskFormerConfig, MaskFormerDetrConfig,
                          MaskFormerForInstanceSegmentation, ResNetConfig, SwinConfig)

from streams import fixture, picture, sampled, uniform

HERE = Path(__file__).parent
MARGIN = 1e-5                                         # of mask logits that steer attention to zero, see make.py
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PICTURES = {"wide": (96, 64), "tall": (64, 160)}      # at stride 32 six cells and ten: neither fills its last panel
LABELS = ["dog", "cat", "sofa", "potted plant", "tree", "grass", "sky", "road", "car", "person", "wall"]
STAGES = ["stage1", "stage2", "stage3", "stage4"]
RESNET = {"embedding_size": 16, "hidden_sizes": [32, 64, 96, 160], "depths": [2, 1, 2, 1], "out_features": STAGES}
SWIN = {"embed_dim": 32, "num_heads": [2, 4, 4, 8], "depths": [2, 1, 2, 1], "out_features": STAGES}
NAMED = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}


def mask2former(backbone):
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(
        backbone_config=backbone, feature_size=128, mask_feature_size=64, hidden_dim=128, encoder_feedforward_dim=96,
        dim_feedforward=160, encoder_layers=2, decoder_layers=5, num_attention_heads=4, num_queries=20, **NAMED))


def maskformer(backbone):
    return MaskFormerForInstanceSegmentation(MaskFormerConfig(
        backbone_config=backbone, fpn_feature_size=128, mask_feature_size=64,
        decoder_config=MaskFormerDetrConfig(d_model=128, decoder_layers=3, decoder_attention_heads=4, encoder_attention_heads=4,
                                            decoder_ffn_dim=160, num_queries=20), **NAMED))


def spread(name, shape):
    """Middle and half width of a tensor's uniform distribution, such that activations stay near one. The same is in base_test.go."""
    part = name.split(".")
    if "criterion" in part:
        return 0.0, 0.0
    if part[-1] == "running_var":
        return 1.0, 0.5
    if part[-1] == "running_mean":
        return 0.0, 0.5
    if part[-2:] == ["sampling_offsets", "bias"]:
        return 0.0, 4.0
    if part[-1].endswith("bias"):
        return 0.0, 0.2
    if len(shape) == 1:                               # norms
        return 1.0, 0.3
    if part[-1] == "logit_scale":
        return math.log(1 / 0.07), 0.2
    if "level_embed" in part or part[-2] in ("queries_embedder", "queries_features", "query_embed", "query_feat"):
        return 0.0, math.sqrt(3)
    gain = 2.0 if len(shape) == 4 else 1.0            # of the variance; ReLU takes half
    return 0.0, math.sqrt(3 * gain / math.prod(shape[1:]))


def load(name, make):
    """The model with the numbers of its tensors' names, in 64 bits, and those names as save_pretrained writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model = make()
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        with safe_open(path, "np") as f:
            tensors = {k: (f.get_slice(k).get_dtype(), tuple(f.get_slice(k).get_shape())) for k in f.keys()}
            whole = {k: f.get_tensor(k) for k, (d, _) in tensors.items() if d != "F32"}
        save_file(whole | {k: uniform(f"{name}/{k}", s, *spread(k, s)).numpy().astype(np.float32)
                           for k, (d, s) in tensors.items() if d == "F32"}, path, metadata={"format": "pt"})
        model, info = type(model).from_pretrained(folder, output_loading_info=True)
        assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        config = json.loads((Path(folder) / "config.json").read_text())
    fixture["config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
    lines = "\n".join(" ".join([k, d, *map(str, s)]) for k, (d, s) in sorted(tensors.items()))
    fixture["names"] = np.frombuffer(lines.encode(), np.uint8)
    return model.double().eval().requires_grad_(False)


def rows(x):
    """[1,C,H,W] → [H·W,C], as the engine has maps."""
    return x[0].flatten(1).T


@torch.no_grad()
def run(name, model):
    for case, (width, height) in PICTURES.items():
        pixels = picture(case, width, height) / 255.0
        x = torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)[None]
        stages, attention = [], []
        hooks = []
        if model.config.model_type == "mask2former":
            for layer in model.model.pixel_level_module.decoder.encoder.layers:
                hooks.append(layer.register_forward_hook(lambda _, __, out: stages.append(out[0])))
            hooks.append(model.model.transformer_module.decoder.mask_predictor.register_forward_hook(
                lambda _, args, out: attention.append(torch.nn.functional.interpolate(
                    out[0], size=args[2], mode="bilinear", align_corners=False))))
        for layer in model.model.transformer_module.decoder.layers:
            hooks.append(layer.register_forward_hook(
                lambda _, __, out: stages.append(out[0].transpose(0, 1) if model.config.model_type == "mask2former" else out)))
        out = model(pixel_values=x, output_hidden_states=True)
        for h in hooks:
            h.remove()
        encoded = len(stages) - len(model.model.transformer_module.decoder.layers)
        for stride, f in zip((4, 8, 16, 32), out.encoder_hidden_states):
            sampled(f"{case}/f{stride}", rows(f))
        for i, f in enumerate(stages[:encoded]):
            sampled(f"{case}/pixel.{i}", f[0])
        for i, f in enumerate(out.pixel_decoder_hidden_states):
            sampled(f"{case}/pyramid.{i}", rows(f))
        sampled(f"{case}/mask features", rows(out.pixel_decoder_last_hidden_state))
        for i, f in enumerate(stages[encoded:]):
            sampled(f"{case}/layer.{i}", f[0])
        sampled(f"{case}/class", out.class_queries_logits[0])
        sampled(f"{case}/mask", out.masks_queries_logits[0].flatten(1))
        scores = torch.einsum("qc,qhw->chw", out.class_queries_logits[0].softmax(-1)[:, :-1], out.masks_queries_logits[0].sigmoid())
        sampled(f"{case}/scores", scores.flatten(1))
        for i, logits in enumerate(attention[:-1]):
            margin = (logits.abs().min() / logits.std()).item()
            print(name, case, i, "blocks", round((logits < 0).double().mean().item(), 2), "margin", margin)
            assert margin > MARGIN, "change SALT"
        for key, v in fixture.items():
            if key.startswith(case) and key.endswith("#"):
                print(key, v[0], "rms", round(float(v[1] / math.sqrt(v[0])), 3))


if __name__ == "__main__":
    for name, make in {
        "mask2former": lambda: mask2former(ResNetConfig(**RESNET)),
        "maskformer": lambda: maskformer(ResNetConfig(**RESNET, downsample_in_bottleneck=True)),
        "maskformer-basic": lambda: maskformer(ResNetConfig(**RESNET, layer_type="basic")),
        # Windows of four fill the finer maps and not the coarser ones; those of seven fill none.
        "mask2former-swin": lambda: mask2former(SwinConfig(**SWIN, window_size=4, mlp_ratio=2.0)),
        "maskformer-swin": lambda: maskformer(SwinConfig(**SWIN, window_size=7)),
    }.items():
        if sys.argv[1:] in ([], [name]):
            fixture.clear()
            run(name, load(name, make))
            save_file(fixture, HERE / f"{name}.safetensors")
            print("bytes", (HERE / f"{name}.safetensors").stat().st_size, "tensors", len(fixture))
