"""Makes fcclip.safetensors: FC-CLIP in PyTorch with random weights, on a small ConvNeXt and a small text encoder.

    python fcclip.py

Mask2Former, ConvNeXt and CLIP's text encoder are those of transformers; what FC-CLIP adds is written down here. The fixture
lists the tensors by the names that an FC-CLIP checkpoint has for them, and their numbers come from these names.
"""
import json
import math
import re
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, ConvNextConfig

from base import HERE, MARGIN, MEAN, PICTURES, STAGES, STD, mask2former, rows, spread
from streams import fixture, picture, sampled, uniform

sys.path.append(str(HERE.parent / "bpe" / "testdata"))
from bpe import tokenizer  # noqa: E402

TEMPLATES = ["a photo of a {}.", "This is a photo of a {}", "There is a {} in the scene", "There is the {} in the scene", "a photo of a {} in the scene",
             "a photo of a small {}.", "a photo of a medium {}.", "a photo of a large {}.", "This is a photo of a small {}.",
             "This is a photo of a medium {}.", "This is a photo of a large {}.", "There is a small {} in the scene.",
             "There is a medium {} in the scene.", "There is a large {} in the scene."]
PROMPTS = ["dog, cat", "armchair, sofa", "Straßenbahn", "wall", "it's a 3rd <|endoftext|> thing"]
TRAINED = ["dog", "sofa, couch", "potted plant", "cat"]
KNOWN = [True, True, False, False, False]
ALPHA, BETA = 0.4, 0.8
EMBEDDING, WIDTH = 48, 64
CLIP, PREDICTOR, PIXELS = "backbone.clip_model.", "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."


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


def head_name(k):
    """A tensor of transformers' Mask2Former in detectron2's names."""
    k = k.replace("model.pixel_level_module.decoder.", PIXELS)
    if k.startswith(PIXELS + "encoder"):
        k = k.replace(".encoder.", ".transformer.encoder.", 1).replace("self_attn_layer_norm", "norm1").replace("final_layer_norm", "norm2").replace("fc", "linear")
    k = k.replace("pixel_decoder.level_embed", "pixel_decoder.transformer.level_embed").replace("input_projections", "input_proj").replace("mask_projection", "mask_features")
    k = re.sub(r"(adapter_1|layer_1)\.0\.", r"\1.", k)
    k = re.sub(r"(adapter_1|layer_1)\.1\.", r"\1.norm.", k)
    for part, theirs in (("self_attn_layer_norm", "self_attention_layers.#.norm"), ("cross_attn_layer_norm", "cross_attention_layers.#.norm"), ("final_layer_norm", "ffn_layers.#.norm"),
                         ("fc1", "ffn_layers.#.linear1"), ("fc2", "ffn_layers.#.linear2"), ("cross_attn", "cross_attention_layers.#.multihead_attn"), ("self_attn", "self_attention_layers.#.self_attn")):
        k = re.sub(rf"model\.transformer_module\.decoder\.layers\.(\d)\.{part}\b", lambda m: PREDICTOR + "transformer_" + theirs.replace("#", m[1]), k)
    k = re.sub(r"model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0", PREDICTOR + r"mask_embed.layers.\1", k)
    for ours, theirs in (("decoder.layernorm", "decoder_norm"), ("queries_embedder", "query_embed"), ("queries_features", "query_feat"), ("level_embed", "level_embed")):
        k = k.replace("model.transformer_module." + ours, PREDICTOR + theirs)
    return k


shapes = {}


def numbers(name, shape):
    """The tensor of a name in the checkpoint."""
    shapes[name] = tuple(shape)
    return uniform("fcclip/" + name, shape, *spread(name, shape))


def fill(module, rename):
    """Gives a module the numbers of its tensors' names in the checkpoint, where queries, keys and values are projected by one matrix."""
    state = {}
    for k, v in module.state_dict().items():
        if k.startswith(("class_predictor", "criterion")):
            continue
        name, turned = rename(k) if rename is text_name else (rename(k), False)
        part = re.search(r"\.([qkv])_proj\.", name)
        if part:
            whole = numbers(name.replace(part[0], ".in_proj_"), (3 * v.shape[0], *v.shape[1:]))
            state[k] = whole.chunk(3)["qkv".index(part[1])]
        else:
            state[k] = numbers(name, v.shape[::-1]).T if turned else numbers(name, v.shape)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and all(m.startswith(("class_predictor", "criterion")) for m in missing), (missing, unexpected)


def normal(x):
    return F.normalize(x, dim=-1)


def layer(x, name, out, bias=True):
    return F.linear(x, numbers(name + ".weight", (out, x.shape[-1])), numbers(name + ".bias", (out,)) if bias else None)


def norm(x, name, eps):
    return F.layer_norm(x, x.shape[-1:], numbers(name + ".weight", x.shape[-1:]), numbers(name + ".bias", x.shape[-1:]), eps)


def pooled(features, logits):
    """[H·W,C] under masks [Q,H·W]."""
    mask = (logits > 0).double()
    return (mask / (mask.sum(-1, keepdim=True) + 1e-8)) @ features


def classify(x, text, counts, scale):
    """Logits of prompts, the best of whose names counts, and of void."""
    logits = numbers(scale, ()).exp().clamp(max=100) * normal(x) @ text.T
    best = [part.max(-1).values for part in logits[:, :-1].split(counts, -1)]
    return torch.stack([*best, logits[:, -1]], -1)


@torch.no_grad()
def main():
    trunk_config = ConvNextConfig(hidden_sizes=[32, 64, 96, 160], depths=[1, 1, 2, 1], out_features=STAGES)
    model = mask2former(trunk_config)
    trunk = model.model.pixel_level_module.encoder
    for k in trunk.hidden_states_norms:               # FC-CLIP takes the stages as they are
        trunk.hidden_states_norms[k] = torch.nn.Identity()
    model = model.double().eval()
    prefix = "model.pixel_level_module.encoder."
    fill(model, lambda k: trunk_name(k.removeprefix(prefix)) if k.startswith(prefix) else head_name(k))

    words = json.loads((HERE.parent / "bpe" / "testdata" / "encode.json").read_text())
    merges = [tuple(m.split(" ")) for m in words["merges"].splitlines()[1:]]
    clip = tokenizer(merges)
    text_model = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(clip), hidden_size=WIDTH, intermediate_size=4 * WIDTH, projection_dim=EMBEDDING, num_hidden_layers=2, num_attention_heads=4, hidden_act="gelu",
        bos_token_id=len(clip) - 2, eos_token_id=len(clip) - 1, pad_token_id=len(clip) - 1)).double().eval()
    fill(text_model, text_name)
    names, counts = [], []
    for prompt in PROMPTS:
        synonyms = prompt.replace(", ", ",").split(",")
        names += synonyms
        counts.append(len(synonyms))
    sentences = [t.format(n) for n in names for t in TEMPLATES]
    tokens = clip(sentences, truncation=True, max_length=77, padding=True, return_tensors="pt")
    text = normal(normal(text_model(input_ids=tokens["input_ids"]).text_embeds).reshape(len(names), len(TEMPLATES), EMBEDDING).mean(1))
    sampled("text", text)
    text = torch.cat([text, normal(numbers("void_embedding.weight", (1, EMBEDDING)))])

    for case, (width, height) in PICTURES.items():
        x = torch.from_numpy((picture(case, width, height) / 255.0 - MEAN) / STD).permute(2, 0, 1)[None]
        steering = []
        hook = model.model.transformer_module.decoder.mask_predictor.register_forward_hook(
            lambda _, args, out: steering.append(F.interpolate(out[0], size=args[2], mode="bilinear", align_corners=False)))
        out = model(pixel_values=x, output_hidden_states=True)
        hook.remove()
        stages, features = out.encoder_hidden_states, out.pixel_decoder_last_hidden_state
        z, masks = out.transformer_decoder_last_hidden_state.squeeze(), out.masks_queries_logits
        z = model.model.transformer_module.decoder.layernorm(z)
        assert torch.allclose(model.class_predictor(z), out.class_queries_logits[0], atol=1e-9)
        for stride, f in zip((4, 8, 16, 32), stages):
            sampled(f"{case}/f{stride}", rows(f))
        coarse = F.interpolate(masks, size=stages[-1].shape[-2:], mode="bilinear", align_corners=False)

        seen = pooled(rows(features), masks[0].flatten(1))
        c = layer(norm(seen, PREDICTOR + "_mask_pooling_proj.0", 1e-5), PREDICTOR + "_mask_pooling_proj.1", z.shape[-1]) + z
        for i, n in enumerate((z.shape[-1], z.shape[-1], EMBEDDING)):
            c = layer(c, f"{PREDICTOR}class_embed.layers.{i}", n)
            c = F.relu(c) if i < 2 else c
        sampled(f"{case}/class embedding", c)
        v = norm(pooled(rows(stages[-1]), coarse[0].flatten(1)), CLIP + "visual.trunk.head.norm", 1e-6)
        v = layer(F.gelu(layer(v, CLIP + "visual.head.mlp.fc1", 2 * EMBEDDING)), CLIP + "visual.head.mlp.fc2", EMBEDDING, bias=False)
        sampled(f"{case}/clip embedding", v)

        first = classify(c, text, counts, PREDICTOR + "logit_scale")
        second = classify(v, text, counts, CLIP + "logit_scale")
        p_in, p_out = first[:, :-1].softmax(-1), second[:, :-1].softmax(-1)
        share = torch.where(torch.tensor(KNOWN), ALPHA, BETA)
        joined = (p_in ** (1 - share) * p_out ** share).log().softmax(-1)
        void = first.softmax(-1)[:, -1:]
        p = torch.cat([joined * (1 - void), void], -1)
        p = torch.log(p + 1e-8).softmax(-1)[:, :-1]
        sampled(f"{case}/probabilities", p.T)
        sampled(f"{case}/scores", torch.einsum("qc,qhw->chw", p, masks[0].sigmoid()).flatten(1))
        for what, logits in [("masks", masks), ("coarse", coarse), *((f"steering {i}", s) for i, s in enumerate(steering[:-1]))]:
            margin = (logits.abs().min() / logits.std()).item()
            print(case, what, "inside", round((logits > 0).double().mean().item(), 2), "empty", int((logits[0].flatten(1) > 0).sum(-1).eq(0).sum()), "margin", margin)
            assert margin > MARGIN, "change SALT"
        print(case, "P", p.max(0).values, "void", void.mean())

    fixture["names"] = np.frombuffer("\n".join(" ".join([k, "F32", *map(str, s)]) for k, s in sorted(shapes.items())).encode(), np.uint8)
    for key, value in {"merges": words["merges"], "prompts": "\n".join(PROMPTS), "trained": "\n".join(TRAINED)}.items():
        fixture[key] = np.frombuffer(value.encode(), np.uint8)
    path = HERE / "fcclip.safetensors"
    save_file(fixture, path)
    print("bytes", path.stat().st_size, "tensors", len(shapes))


main()
