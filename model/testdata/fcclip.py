"""Makes the fixtures of FC-CLIP: what PyTorch says of it with random weights, on a small ConvNeXt, on a small ResNet of CLIP, and a small text encoder.

    python fcclip.py [fcclip|fcclip-attention]

Mask2Former, ConvNeXt and CLIP's text encoder are those of transformers; what FC-CLIP adds is written down here. CLIP's ResNet, which
transformers has not, and detectron2's names are those of weights/train. A fixture lists the tensors by the names that an FC-CLIP checkpoint has for them, and their numbers come from these names.

    python fcclip.py FOLDER CLIP [QUERIES WIDTH HEIGHT]
    PMP_CHECKPOINT=FOLDER go test ./model -run TestCheckpoint -v

makes a checkpoint of the usual size with random weights in FOLDER, whose CLIP is open_clip's own, in 32 bits: convnext_large_d_320,
convnext_base_w_320, RN50, RN101, RN50x4, RN50x16 or RN50x64; needs open_clip, and timm for the first two. Without numbers it has 20
queries and a picture of 320 × 256: with 250 that one has mask logits so near to zero that rounding decides whether a cell is under the mask;
250 128 96 is a pair that has none for one of a few seeds. """
import gzip
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn import functional as F
from torch import nn
from transformers.modeling_outputs import BackboneOutput
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, ConvNextConfig, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

from base import HERE, MARGIN, MEAN, PICTURES, STAGES, STD, mask2former, rows, spread
from streams import fixture, picture, sampled, uniform

sys.path.insert(0, str(HERE.parents[1] / "weights" / "train"))
from clip import TEMPLATES, ResNet, tokenizer  # noqa: E402
from detectron2 import ENCODER, PREDICTOR, mask2former as head_name  # noqa: E402

PROMPTS = ["dog, cat", "armchair, sofa", "Straßenbahn", "wall", "it's a 3rd <|endoftext|> thing"]
TRAINED = ["dog", "sofa, couch", "potted plant", "cat"]
KNOWN = [True, True, False, False, False]
ALPHA, BETA = 0.4, 0.8
EMBEDDING = 48                                        # of the small ones
CLIP = "backbone.clip_model."


def trunk_name(k):
    """A tensor of transformers' ConvNeXt in timm's names."""
    k = k.replace("embeddings.patch_embeddings.", "stem.0.").replace("embeddings.layernorm.", "stem.1.")
    k = re.sub(r"encoder\.stages\.(\d)\.downsampling_layer\.", r"stages.\1.downsample.", k)
    k = re.sub(r"encoder\.stages\.(\d)\.layers\.", r"stages.\1.blocks.", k)
    for ours, theirs in (("layer_scale_parameter", "gamma"), ("dwconv", "conv_dw"), ("layernorm", "norm"), ("pwconv1", "mlp.fc1"), ("pwconv2", "mlp.fc2")):
        k = k.replace(ours, theirs)
    return CLIP + "visual.trunk." + k


def text_name(k):
    """A tensor of transformers' CLIP text encoder in open_clip's names, and whether it lies the other way round."""
    if k == "text_projection.weight":
        return CLIP + "text_projection", True
    k = k.replace("text_model.", "").replace("embeddings.token_embedding", "token_embedding").replace("embeddings.position_embedding.weight", "positional_embedding")
    k = k.replace("final_layer_norm", "ln_final").replace("encoder.layers", "transformer.resblocks").replace("layer_norm", "ln_")
    return CLIP + k.replace("self_attn.", "attn.").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj"), False


weights = {}                                          # of the checkpoint


def numbers(name, shape):
    """The tensor of a name in the checkpoint."""
    if name not in weights:
        weights[name] = draw(name, tuple(shape), *spread(name, shape))
    assert weights[name].shape == tuple(shape), name
    return weights[name]


def fill(module, rename):
    """Gives a module the numbers of its tensors' names in the checkpoint, where queries, keys and values are projected by one matrix."""
    state = {}
    for k, v in module.state_dict().items():
        if k.startswith(("class_predictor", "criterion")) or not v.is_floating_point():
            continue
        name, turned = rename(k) if rename is text_name else (rename(k), False)
        part = re.search(r"\.([qkv])_proj\.", name)
        if part and "attnpool" not in name:
            whole = numbers(name.replace(part[0], ".in_proj_"), (3 * v.shape[0], *v.shape[1:]))
            state[k] = whole.chunk(3)["qkv".index(part[1])]
        else:
            state[k] = numbers(name, v.shape[::-1]).T if turned else numbers(name, v.shape)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all(m.startswith(("class_predictor", "criterion")) or m.endswith("num_batches_tracked") for m in missing), (missing, unexpected)


class ClipMaps(nn.Module):
    """The stages of an image encoder of CLIP, as transformers' Mask2Former wants them of a backbone."""

    def __init__(self, visual):
        super().__init__()
        self.visual = visual

    def forward(self, x, **_):
        v, maps = self.visual, []
        if hasattr(v, "trunk"):
            x = v.trunk.stem(x)
            for stage in v.trunk.stages:
                x = stage(x)
                maps.append(x)
            return BackboneOutput(feature_maps=tuple(maps))
        for i in "123":
            x = F.relu(getattr(v, "bn" + i)(getattr(v, "conv" + i)(x)))
        x = F.avg_pool2d(x, 2)
        for i in range(1, 5):
            x = getattr(v, f"layer{i}")(x)
            maps.append(x)
        return BackboneOutput(feature_maps=tuple(maps))


def pooled_by_attention(f, masks, pool):
    """What CLIP's attention pool makes of the cells of [1,C,H,W] under each of masks [Q,H,W], NaN where there are none: the mean of all cells asks."""
    _, c, h, w = f.shape
    position = pool.positional_embedding
    side = math.isqrt(len(position) - 1)
    cells = rows(f) + rows(F.interpolate(position[1:].T.reshape(1, c, side, side), size=(h, w), mode="bilinear", align_corners=False))
    heads = c // 64
    q = pool.q_proj(rows(f).mean(0) + position[0]).reshape(heads, 1, 64)
    k, v = (p(cells).reshape(h * w, heads, 64).transpose(0, 1) for p in (pool.k_proj, pool.v_proj))
    scores = (q @ k.transpose(1, 2) / 8)[None].masked_fill(~(masks.flatten(1) > 0)[:, None, None], -math.inf)   # [Q,heads,1,H·W]
    return pool.c_proj((scores.softmax(-1) @ v).reshape(len(masks), c))


def normal(x):
    return F.normalize(x, dim=-1)


def layer(x, name, out, bias=True):
    return F.linear(x, numbers(name + ".weight", (out, x.shape[-1])), numbers(name + ".bias", (out,)) if bias else None)


def norm(x, name, eps):
    return F.layer_norm(x, x.shape[-1:], numbers(name + ".weight", x.shape[-1:]), numbers(name + ".bias", x.shape[-1:]), eps)


def pooled(features, logits):
    """[H·W,C] under masks [Q,H·W]."""
    mask = (logits > 0).to(features.dtype)
    return (mask / (mask.sum(-1, keepdim=True) + 1e-8)) @ features


def classify(x, text, counts, scale):
    """Logits of prompts, the best of whose names counts, and of void."""
    logits = numbers(scale, ()).exp().clamp(max=100) * normal(x) @ text.T
    best = [part.max(-1).values for part in logits[:, :-1].split(counts, -1)]
    return torch.stack([*best, logits[:, -1]], -1)


def with_clip(model, visual):
    """Gives a Mask2Former an image encoder of CLIP, and both the numbers of the checkpoint."""
    model.model.pixel_level_module.encoder = ClipMaps(visual)
    fill(model, lambda k: CLIP + k.removeprefix(ENCODER) if k.startswith(ENCODER) else head_name(k))
    if hasattr(visual, "trunk"):
        return lambda f, masks: visual.head(visual.trunk.head(pooled(rows(f), masks.flatten(1))[..., None, None]))
    return lambda f, masks: pooled_by_attention(f, masks, visual.attnpool)


def small(name):
    """A small FC-CLIP: its Mask2Former, what CLIP sees under masks, its text encoder, and the merges of its tokenizer."""
    if name == "fcclip-attention":
        model = mask2former(ResNetConfig(hidden_sizes=[64, 128, 256, 512], out_features=STAGES)).double().eval()
        see = with_clip(model, ResNet(16, [1, 1, 1, 2], 3, EMBEDDING).double().eval())
        width, heads, act = 128, 2, "quick_gelu"      # a head for each 64 channels
    else:
        model = mask2former(ConvNextConfig(hidden_sizes=[32, 64, 96, 160], depths=[1, 1, 2, 1], out_features=STAGES))
        trunk = model.model.pixel_level_module.encoder
        for k in trunk.hidden_states_norms:           # FC-CLIP takes the stages as they are
            trunk.hidden_states_norms[k] = nn.Identity()
        model = model.double().eval()
        fill(model, lambda k: trunk_name(k.removeprefix(ENCODER)) if k.startswith(ENCODER) else head_name(k))

        def see(f, masks):
            v = norm(pooled(rows(f), masks.flatten(1)), CLIP + "visual.trunk.head.norm", 1e-6)
            return layer(F.gelu(layer(v, CLIP + "visual.head.mlp.fc1", 2 * EMBEDDING)), CLIP + "visual.head.mlp.fc2", EMBEDDING, bias=False)
        width, heads, act = 64, 4, "gelu"
    merges = json.loads((HERE.parent / "bpe" / "testdata" / "encode.json").read_text())["merges"]
    clip = tokenizer([tuple(m.split(" ")) for m in merges.splitlines()[1:]])
    text_model = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(clip), hidden_size=width, intermediate_size=4 * width, projection_dim=EMBEDDING, num_hidden_layers=2, num_attention_heads=heads, hidden_act=act,
        bos_token_id=len(clip) - 2, eos_token_id=len(clip) - 1, pad_token_id=len(clip) - 1)).double().eval()
    fill(text_model, text_name)

    def read(sentences):
        tokens = clip(sentences, truncation=True, max_length=77, padding=True, return_tensors="pt")
        return text_model(input_ids=tokens["input_ids"]).text_embeds
    return model, see, read, merges


def whole(name, queries):
    """The same of the usual size, with a CLIP of open_clip."""
    import open_clip
    resnet = name.startswith("RN")
    clip = open_clip.create_model(name, pretrained=None, force_quick_gelu=resnet).float().eval().requires_grad_(False)
    widths = [(4 * clip.visual.conv3.out_channels if resnet else clip.visual.trunk.stem[0].out_channels) << i for i in range(4)]
    model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(
        backbone_config=ResNetConfig(hidden_sizes=widths, depths=[1] * 4, out_features=STAGES), num_queries=queries)).float().eval()
    see = with_clip(model, clip.visual)
    fill(clip, lambda k: CLIP + k)                    # the text encoder too
    merges = gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8").read().split("\n")[:49152 - 256 - 1]
    words = open_clip.get_tokenizer(name)
    return model, see, lambda sentences: clip.encode_text(words(sentences)), "\n".join(["#version: 0.2", *merges[1:]]) + "\n"


def answer(model, see, x, text, counts, known, valid):
    """What the network says of pixels [1,3,H,W]: text are the embeddings of all names of prompts, of which each has a count and is known or not,
    and of void."""
    e = text.shape[-1]
    out = model.model(pixel_values=x, output_hidden_states=True)
    stages, features = out.encoder_hidden_states, out.pixel_decoder_last_hidden_state
    z, masks = out.transformer_decoder_intermediate_states[-1][:, 0], out.masks_queries_logits[-1]
    coarse = F.interpolate(masks, size=stages[-1].shape[-2:], mode="bilinear", align_corners=False)
    seen = pooled(rows(features), masks[0].flatten(1))
    c = layer(norm(seen, PREDICTOR + "_mask_pooling_proj.0", 1e-5), PREDICTOR + "_mask_pooling_proj.1", z.shape[-1]) + z
    for i, n in enumerate((z.shape[-1], z.shape[-1], e)):
        c = layer(c, f"{PREDICTOR}class_embed.layers.{i}", n)
        c = F.relu(c) if i < 2 else c
    v = see(stages[-1], coarse[0])
    there = (coarse[0].flatten(1) > 0).any(-1, keepdim=True)
    first = classify(c, text, counts, PREDICTOR + "logit_scale")
    second = classify(v, text, counts, CLIP + "logit_scale")
    p_in, p_out = first[:, :-1].softmax(-1), second[:, :-1].softmax(-1)
    share = torch.where(torch.tensor(known), ALPHA, BETA).to(text.dtype)
    if valid:
        share = share * there
    joined = (p_in ** (1 - share) * p_out ** share).log().softmax(-1)
    void = first.softmax(-1)[:, -1:]
    p = torch.cat([joined * (1 - void), void], -1)
    p = torch.log(p + 1e-8).softmax(-1)[:, :-1]
    return {f"f{stride}": rows(f) for stride, f in zip((4, 8, 16, 32), stages)} | {
        "masks": masks, "coarse": coarse, "class embedding": c, "class logits": first, "clip embedding": v.where(there, 0.0) if valid else v, "there": there,
        "void": void, "probabilities": p.T, "scores": torch.einsum("qc,qhw->chw", p, masks[0].sigmoid()).flatten(1)}


def texts(read, prompts):
    """Unit embeddings of all names that prompts list, and how many each has."""
    synonyms = [p.replace(", ", ",").split(",") for p in prompts]
    text = normal(read([t.format(n) for names in synonyms for n in names for t in TEMPLATES]))
    return normal(text.unflatten(0, (-1, len(TEMPLATES))).mean(1)), [len(s) for s in synonyms]


@torch.no_grad()
def run(model, see, read, pictures, prompts, valid, least):
    """Keeps what the network says of pictures. With valid, as FC-CLIP has it for ResNets, CLIP has no share in masks that hold no cell of its
    map. No mask logit that matters is nearer to zero than least."""
    text, counts = texts(read, prompts)
    sampled("text", text)
    text = torch.cat([text, normal(numbers("void_embedding.weight", (1, text.shape[-1])))])

    for case, (width, height) in pictures.items():
        x = torch.from_numpy((picture(case, width, height) / 255.0 - MEAN) / STD).permute(2, 0, 1)[None].to(text.dtype)
        steering = []
        hook = model.model.transformer_module.decoder.mask_predictor.register_forward_hook(
            lambda _, args, out: steering.append(F.interpolate(out[0], size=args[2], mode="bilinear", align_corners=False)))
        found = answer(model, see, x, text, counts, KNOWN, valid)
        hook.remove()
        assert found["there"].any(), "no mask holds a cell"
        for name in ("f4", "f8", "f16", "f32", "class embedding", "clip embedding", *["there"][:valid], "probabilities", "scores"):
            sampled(f"{case}/{name}", found[name])
        masks, coarse, p = found["masks"], found["coarse"], found["probabilities"]
        for what, logits in [("masks", masks), ("coarse", coarse), *((f"steering {i}", s) for i, s in enumerate(steering[:-1]))]:
            margin = (logits.abs().min() / logits.std()).item()
            print(case, what, "inside", round((logits > 0).double().mean().item(), 2), "empty", int((logits[0].flatten(1) > 0).sum(-1).eq(0).sum()), "margin", margin)
            assert margin > least, "change SALT"
        print(case, "P", p.max(-1).values, "void", found["void"].mean())

    for key, value in {"prompts": "\n".join(prompts), "trained": "\n".join(TRAINED)}.items():
        fixture[key] = np.frombuffer(value.encode(), np.uint8)


def make_fixture(name):
    global draw
    draw = lambda key, *spread: uniform(f"{name}/{key}", *spread)
    weights.clear()
    fixture.clear()
    model, see, read, merges = small(name)
    run(model, see, read, PICTURES, PROMPTS, name != "fcclip", MARGIN)
    assert name == "fcclip" or any(k.endswith("/there") and not x.all() for k, x in fixture.items()), "every mask holds a cell"
    fixture["names"] = np.frombuffer("\n".join(" ".join([k, "F32", *map(str, x.shape)]) for k, x in sorted(weights.items())).encode(), np.uint8)
    fixture["merges"] = np.frombuffer(merges.encode(), np.uint8)
    path = HERE / f"{name}.safetensors"
    save_file(fixture, path)
    print("bytes", path.stat().st_size, "tensors", len(weights))


def make_checkpoint(folder, name, queries=20, *size):
    global draw
    for seed in range(1, 20):
        generator = torch.Generator().manual_seed(seed)
        draw = lambda _, shape, middle, width: middle + width * (2 * torch.rand(shape, generator=generator) - 1)
        weights.clear()
        fixture.clear()
        model, see, read, merges = whole(name, queries)
        try:                                          # open_clip reads <|endoftext|> as any other text
            run(model, see, read, {"checkpoint": size or (320, 256)}, [*PROMPTS[:-1], "it's a 3rd thing"], name.startswith("RN"), 3e-6)
            break
        except AssertionError as e:
            print("seed", seed, e, flush=True)
    else:
        sys.exit("no seed will do; take fewer queries or smaller sides")
    fixture["size"] = np.frombuffer(b"%d %d" % (size or (320, 256)), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": weights}, folder / "fcclip.pth")
    (folder / "fcclip.txt").write_text("\n".join(TRAINED))
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    save_file(fixture, folder / "expected.safetensors")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        make_checkpoint(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
    else:
        for name in sys.argv[1:] or ["fcclip", "fcclip-attention"]:
            make_fixture(name)
