"""Makes the fixtures of OVSeg and of other networks whose masks a CLIP names: what PyTorch says of them with random weights.

    python ovseg.py [ovseg|clip]

"ovseg" is a small MaskFormer with OVSeg's class head and a CLIP with mask prompts. "clip" is the Mask2Former of
mask2former.safetensors and a CLIP as transformers saves it. All networks are those of transformers; what OVSeg adds is written
down here: its mask prompts and its ensemble. Its crops, whose own fixtures are there, and detectron2's names are those of weights/train. The fixture of OVSeg lists the tensors by the names that its checkpoint has for them.

    python ovseg.py FOLDER                            # with random weights: a Swin-T and a ViT-B/16; or FOLDER swin-base ViT-L/14, or with 100 behind it
    PMP_CHECKPOINT=FOLDER go test ./model -run TestCheckpoint -v -timeout 60m

makes a checkpoint in FOLDER whose layers have the usual size, in 32 bits, with 20 queries unless it is told how many: CLIP sees each of them.
Swin-B with ViT-L/14 and R101c with ViT-B/16 are those that OVSeg's authors have published (swin-base, R101c).
"""
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, MaskFormerConfig, MaskFormerDetrConfig, MaskFormerForInstanceSegmentation, ResNetConfig, SwinConfig

import deep
import fcclip                                         # which finds clip and detectron2
from base import HERE, MARGIN, MEAN, PICTURES, RESNET, STAGES, STD, SWIN, load, mask2former, maskformer
from clip import cut
from detectron2 import maskformer as head_name
from fcclip import PREDICTOR, PROMPTS, TEMPLATES, layer, normal, numbers, tokenizer
from streams import fixture, picture, sampled, uniform

WEIGHT = 0.7                                          # of CLIP
HIDDEN = 96                                           # of the small one's class head
CLIP, OTHER = "clip_adapter.clip_model.", "clip_adapter.non_object_embedding"


def clip_name(k):
    """A tensor of transformers' CLIP in OpenAI's names, and whether it lies the other way round."""
    if k in ("visual_projection.weight", "text_projection.weight"):
        return CLIP + {"v": "visual.proj", "t": "text_projection"}[k[0]], True
    k = k.replace("vision_model.embeddings.patch_embedding", "visual.conv1").replace("pre_layrnorm", "ln_pre").replace("post_layernorm", "ln_post")
    k = k.replace("text_model.", "").replace("vision_model.", "visual.").replace("embeddings.", "").replace("position_embedding.weight", "positional_embedding")
    k = k.replace("final_layer_norm", "ln_final").replace("encoder.layers", "transformer.resblocks").replace("layer_norm", "ln_")
    return CLIP + k.replace("self_attn.", "attn.").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj"), False


def fill(module, rename):
    """Gives a module the numbers of its tensors' names in the checkpoint, where queries, keys and values are projected by one matrix."""
    state = {}
    for k, v in module.state_dict().items():
        if k.startswith(("class_predictor", "criterion", "logit_scale")) or not v.is_floating_point() or re.search(r"encoder\.(model\.)?layernorm", k):
            continue
        name, turned = rename(k) if rename is clip_name else (rename(k), False)
        part = re.search(r"\.([qkv])_proj\.", name)
        if part:
            joined = name.replace(part[0], ".qkv." if name.startswith("backbone") else ".in_proj_")
            state[k] = numbers(joined, (3 * v.shape[0], *v.shape[1:])).chunk(3)["qkv".index(part[1])]
        else:
            state[k] = numbers(name, v.shape[::-1]).T if turned else numbers(name, v.shape)
    missing, unexpected = module.load_state_dict(state, strict=False)
    needless = ("relative_position_index", "num_batches_tracked")
    assert not unexpected and all(m.startswith(("class_predictor", "criterion", "logit_scale")) or ".layernorm." in m or m.endswith(needless) for m in missing), missing


def see(vision, projection, pixels, inside=None, prompts=()):
    """CLIP's vision transformer, where patches that the mask does not touch are replaced by learned ones before some layers."""
    e, patch = vision.embeddings, vision.embeddings.patch_size
    x = e.patch_embedding(pixels).flatten(2).transpose(1, 2)
    if len(prompts):
        touched = F.max_pool2d(inside, patch).flatten(2).transpose(1, 2) > 0
        x = torch.where(touched, x, prompts[0])
    x = torch.cat([e.class_embedding.expand(len(x), 1, -1), x], 1) + e.position_embedding.weight
    x = vision.pre_layrnorm(x)
    for i, block in enumerate(vision.encoder.layers):
        if 0 < i < len(prompts):
            x = torch.cat([x[:, :1], torch.where(touched, x[:, 1:], prompts[i])], 1)
        x = block(x, attention_mask=None)
        x = x[0] if isinstance(x, tuple) else x
    return projection(vision.post_layernorm(x[:, 0]))


def read(clip, words, names):
    """Unit embeddings of names."""
    tokens = words([t.format(n) for n in names for t in TEMPLATES], truncation=True, max_length=77, padding=True, return_tensors="pt")
    text = normal(clip.text_projection(clip.text_model(input_ids=tokens["input_ids"]).pooler_output))
    return normal(text.reshape(len(names), len(TEMPLATES), -1).mean(1))


def best(logits, counts):
    """The logits of prompts, the best of whose names counts."""
    return torch.stack([part.max(-1).values for part in logits.split(counts, -1)], -1)


def split(prompts):
    synonyms = [p.replace(", ", ",").split(",") for p in prompts]
    return sum(synonyms, []), [len(s) for s in synonyms]


def chosen(masks):
    """A threshold so high that a fourth of the masks is empty, and such that no pixel is hardly above or below."""
    most = torch.cat([m.flatten(1).max(-1).values for m in masks]).quantile(0.25).sigmoid().item()
    for i in range(20):
        t = round(most, 3) + i / 1000
        if all((m - math.log(t / (1 - t))).abs().min() / m.std() > MARGIN for m in masks):
            return round(t, 3)
    raise SystemExit("change SALT")


def look(masks, pixels, clip, threshold, prompts=()):
    """What CLIP makes of each mask [Q,H,W], zeros where it has no pixel; which have one; crops, and which of their pixels are inside."""
    size = clip.config.vision_config.image_size
    inside = masks > math.log(threshold / (1 - threshold))
    there = inside.flatten(1).any(-1)
    crops, touched = (torch.cat(x) for x in zip(*(cut(pixels, m, size) for m in inside[there])))
    seen = torch.zeros(len(masks), clip.config.projection_dim, dtype=masks.dtype)
    seen[there] = torch.cat([normal(see(clip.vision_model, clip.visual_projection, c, t, prompts)) for c, t in zip(crops.split(4), touched.split(4))])
    return seen, there, crops, touched


def keep(case, clip, words, seen, there, masks, own, joined, prompts=PROMPTS):
    """What each mask is: own has what the class head says of unit embeddings of texts, and joined what comes of that and of CLIP."""
    for what, some in (("", prompts), (" single", prompts[:1] + ["others"])):
        names, counts = split(some)
        text = read(clip, words, names)
        if what == "" and case == next(iter(PICTURES)):
            sampled("text", text)
        second = best(100 * seen @ text.T, counts).softmax(-1)
        p = joined(own(text, counts), second, there[:, None])
        p = p[:, :1] if what else p
        sampled(f"{case}/probabilities{what}", p.T)
        sampled(f"{case}/scores{what}", torch.einsum("qc,qhw->chw", p, masks.sigmoid()).flatten(1))
        print(case, what, "P", p.max(0).values, "there", int(there.sum()))


def small_clip(e=48):
    return dict(projection_dim=e, text_config=dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2),
                vision_config=dict(hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=8))


def small_words():
    merges = json.loads((HERE.parent / "bpe" / "testdata" / "encode.json").read_text())["merges"]
    words = tokenizer([tuple(m.split(" ")) for m in merges.splitlines()[1:]])
    return words, merges, dict(vocab_size=len(words), bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1)


def configure(c, ends):
    c["text_config"].update(ends)
    return CLIPConfig(**c)


def keep_crops():
    """Crops of masks that are made up: a speck, a bar, a disc at the picture's edge, all of it, and none."""
    x = torch.from_numpy(picture("crops", 96, 64) / 255.0).permute(2, 0, 1)
    y, c = torch.meshgrid(torch.arange(16).double(), torch.arange(24).double(), indexing="ij")
    for i, logits in enumerate([1.3 - 4 * ((y - 7).abs() + (c - 11).abs()), 2.1 - 3.3 * (y - 3).abs() + 0 * c, 5.3 - ((y - 14) ** 2 + (c - 21) ** 2).sqrt(), 7.7 + 0 * (y + c), -1.1 - 0 * (y + c)]):
        whole = F.interpolate(logits[None, None], size=(64, 96), mode="bilinear")[0, 0]
        inside = whole > math.log(0.4 / 0.6)
        assert (whole - math.log(0.4 / 0.6)).abs().min() > 1e-4
        sampled(f"crops/{i} inside", inside)
        if inside.any():
            seen, touched = cut(x, inside, 32)
            sampled(f"crops/{i} seen", seen[0].permute(1, 2, 0))
            # As OVSeg has it: the mean over a patch, rounded up.
            sampled(f"crops/{i} touched", F.avg_pool2d(touched, 8).ceil())


def masks_of(model, x):
    out = model(pixel_values=x, output_hidden_states=True)
    masks = out.masks_queries_logits
    return out, masks[0], F.interpolate(masks, size=x.shape[-2:], mode="bilinear", align_corners=False)[0]


def network_input(case, size):
    pixels = picture(case, *size) / 255.0
    return torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)[None], torch.from_numpy(pixels).permute(2, 0, 1)


def class_embedding(out, hidden, e):
    z = out.transformer_decoder_last_hidden_state[0]
    return layer(F.relu(layer(z, PREDICTOR + "class_embed.layers.0", hidden)), PREDICTOR + "class_embed.layers.1", e)


def class_logits(c, text, counts, other):
    """What OVSeg's class head says of names and of void."""
    return torch.cat([best(100 * normal(c) @ text.T, counts), 100 * normal(c) @ normal(other).T], -1)


def both(first, second, there):
    return first ** (1 - WEIGHT) * torch.where(there, second, 1) ** WEIGHT


def run_ovseg(model, clip, words, pictures, hidden):
    """What OVSeg says of pictures."""
    e, patches = clip.config.projection_dim, clip.vision_model.embeddings.num_patches
    prompts = numbers(CLIP + "visual.mask_embedding", (3, patches, clip.config.vision_config.hidden_size))
    other = numbers(OTHER, (1, e))
    results = {case: masks_of(model, network_input(case, size)[0].to(other.dtype)) for case, size in pictures.items()}
    threshold = chosen([whole for *_, whole in results.values()])
    for case, size in pictures.items():
        out, masks, whole = results[case]
        c = class_embedding(out, hidden, e)
        sampled(f"{case}/class embedding", c)
        seen, there, crops, touched = look(whole, network_input(case, size)[1].to(other.dtype), clip, threshold, prompts)
        print(case, "threshold", threshold, "empty", int((~there).sum()), "outside", 1 - (F.max_pool2d(touched, clip.config.vision_config.patch_size)).mean().item())
        sampled(f"{case}/clip embedding", seen)
        keep(case, clip, words, seen, there, masks, lambda text, counts: class_logits(c, text, counts, other).softmax(-1)[:, :-1], both)
    return threshold


def small():
    """A small OVSeg with the checkpoint's numbers: its MaskFormer, its CLIP, and the words and merges of its tokenizer."""
    words, merges, ends = small_words()
    model, clip = maskformer(SwinConfig(**SWIN, window_size=4, mlp_ratio=2.0)).double().eval(), CLIPModel(configure(small_clip(), ends)).double().eval()
    fill(model, head_name)
    fill(clip, clip_name)
    return model, clip, words, merges


@torch.no_grad()
def make_ovseg():
    # Not just the name, with whose numbers void would win everywhere.
    fcclip.draw = lambda key, *spread: uniform(f"ovseg 2/{key}", *spread)
    model, clip, words, merges = small()
    threshold = run_ovseg(model, clip, words, PICTURES, HIDDEN)
    keep_crops()
    fixture["names"] = np.frombuffer("\n".join(" ".join([k, "F32", *map(str, x.shape)]) for k, x in sorted(fcclip.weights.items())).encode(), np.uint8)
    return merges, threshold


@torch.no_grad()
def make_clip():
    model = load("mask2former", lambda: mask2former(ResNetConfig(**RESNET)))
    fixture.clear()
    words, merges, ends = small_words()
    c = small_clip()
    c["vision_config"].update(hidden_act="gelu", num_attention_heads=4)
    clip = load("clip", lambda: CLIPModel(configure(c, ends)))
    return merges, run_clip(model, clip, words, PICTURES)


def run_clip(model, clip, words, pictures):
    """What a CLIP makes of a network's masks in pictures; returns from which probability on a pixel was part of one."""
    dtype = clip.logit_scale.dtype
    results = {case: masks_of(model, network_input(case, size)[0].to(dtype)) for case, size in pictures.items()}
    threshold = chosen([whole for *_, whole in results.values()])
    scale = clip.logit_scale.exp().clamp(max=100) / 100
    for case, size in pictures.items():
        out, masks, whole = results[case]
        seen, there, crops, _ = look(whole, network_input(case, size)[1].to(dtype), clip, threshold)
        # The same by transformers' own way.
        again = torch.cat([clip.vision_model(pixel_values=c).pooler_output for c in crops.split(4)])
        assert torch.allclose(seen[there], normal(clip.visual_projection(again)), atol=1e-9 if dtype == torch.float64 else 1e-5)
        sampled(f"{case}/clip embedding", seen)
        anything = 1 - out.class_queries_logits[0].softmax(-1)[:, -1:]
        keep(case, clip, words, scale * seen, there, masks, lambda *_: anything, lambda first, second, there: first * second * there)
    return threshold


def whole_clip(vit):
    """A CLIP of the usual size, its tokenizer and the merges of that."""
    width, layers, patch, text = {"ViT-B/16": (768, 12, 16, 512), "ViT-L/14": (1024, 24, 14, 768)}[vit]
    # Any list of merges will do, as long as there are so many.
    merges = made_up_merges(49408 - 514)
    words = tokenizer(merges)
    clip = CLIPModel(configure(dict(
        projection_dim=text, text_config=dict(hidden_size=text, intermediate_size=4 * text, num_hidden_layers=12, num_attention_heads=text // 64),
        vision_config=dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=width // 64, patch_size=patch)),
        dict(vocab_size=len(words), bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=len(words) - 1))).eval()
    return clip, words, "\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n"


def make_checkpoint(folder, encoder="swin-tiny", vit="ViT-B/16", queries=20):
    generator = torch.Generator().manual_seed(1)

    def draw(name, shape, middle, width):
        # With so many channels mask logits would be far from zero nearly everywhere.
        return middle + width * (2 * torch.rand(shape, generator=generator) - 1) / (32 if "mask_embed.layers.2" in name else 1)
    fcclip.draw = draw
    sizes = {"swin-tiny": dict(embed_dim=96, num_heads=[3, 6, 12, 24], depths=[2, 2, 6, 2], window_size=7),
             "swin-base": dict(embed_dim=128, num_heads=[4, 8, 16, 32], depths=[2, 2, 18, 2], window_size=12)}
    widths, blocks = [256, 512, 1024, 2048], [3, 4, 23, 3]
    backbone = SwinConfig(**sizes[encoder], out_features=STAGES) if encoder in sizes else ResNetConfig(hidden_sizes=widths, depths=[1] * 4, out_features=STAGES)
    clip, words, merges = whole_clip(vit)
    model = MaskFormerForInstanceSegmentation(MaskFormerConfig(backbone_config=backbone, decoder_config=MaskFormerDetrConfig(num_queries=int(queries)))).eval()
    if encoder == "R101c":
        model.model.pixel_level_module.encoder = deep.ResNet(128, widths, blocks).eval()
    fill(model, head_name)
    fill(clip, clip_name)
    with torch.no_grad():
        threshold = run_ovseg(model, clip, words, {"checkpoint": (320, 256)}, 1024)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {k: v.clone() for k, v in fcclip.weights.items()}}, folder / "ovseg.pth")
    (folder / "ovseg.json").write_text(json.dumps({"mask_threshold": threshold}))
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    fixture["prompts"] = np.frombuffer("\n".join(PROMPTS).encode(), np.uint8)
    save_file(fixture, folder / "expected.safetensors")


def made_up_merges(n):
    """Pairs of letters, then pairs of these and letters: n of them."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pairs = [(a, b) for a in letters for b in letters]
    return (pairs + [(a + b, c) for a, b in pairs for c in letters] + [(a + b, c + d) for a, b in pairs for c, d in pairs])[:n]


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] not in ("ovseg", "clip"):
        make_checkpoint(Path(sys.argv[1]), *sys.argv[2:])
        sys.exit()
    for name in sys.argv[1:] or ["ovseg", "clip"]:
        fixture.clear()
        merges, threshold = {"ovseg": make_ovseg, "clip": make_clip}[name]()
        for key, value in {"merges": merges, "prompts": "\n".join(PROMPTS), "threshold": str(threshold)}.items():
            fixture[key] = np.frombuffer(value.encode(), np.uint8)
        save_file(fixture, HERE / f"{name}.safetensors")
        print("bytes", (HERE / f"{name}.safetensors").stat().st_size)
