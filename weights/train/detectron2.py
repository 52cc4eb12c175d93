"""What detectron2 calls the tensors of transformers' Mask2Former and MaskFormer, where queries, keys and values are projected by one matrix."""
import re

import torch

PREDICTOR, PIXELS, BACKBONE = "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder.", "backbone."
ENCODER = "model.pixel_level_module.encoder."


def mask2former(k):
    """The name of a tensor of a Mask2Former without its image encoder."""
    k = k.replace("model.pixel_level_module.decoder.", PIXELS)
    if k.startswith(PIXELS + "encoder"):
        k = k.replace(".encoder.", ".transformer.encoder.", 1).replace("self_attn_layer_norm", "norm1").replace("final_layer_norm", "norm2").replace("fc", "linear")
    k = k.replace("pixel_decoder.level_embed", "pixel_decoder.transformer.level_embed").replace("input_projections", "input_proj").replace("mask_projection", "mask_features")
    k = re.sub(r"(adapter_1|layer_1)\.0\.", r"\1.", k)
    k = re.sub(r"(adapter_1|layer_1)\.1\.", r"\1.norm.", k)
    for part, theirs in (("self_attn_layer_norm", "self_attention_layers.#.norm"), ("cross_attn_layer_norm", "cross_attention_layers.#.norm"), ("final_layer_norm", "ffn_layers.#.norm"),
                         ("fc1", "ffn_layers.#.linear1"), ("fc2", "ffn_layers.#.linear2"), ("cross_attn", "cross_attention_layers.#.multihead_attn"), ("self_attn", "self_attention_layers.#.self_attn")):
        k = re.sub(rf"model\.transformer_module\.decoder\.layers\.(\d+)\.{part}\b", lambda m: PREDICTOR + "transformer_" + theirs.replace("#", m[1]), k)
    k = re.sub(r"model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.(\d)\.0", PREDICTOR + r"mask_embed.layers.\1", k)
    for ours, theirs in (("decoder.layernorm", "decoder_norm"), ("queries_embedder", "query_embed"), ("queries_features", "query_feat"), ("level_embed", "level_embed")):
        k = k.replace("model.transformer_module." + ours, PREDICTOR + theirs)
    return k


def maskformer(k):
    """The name of a tensor of a MaskFormer on a Swin Transformer."""
    k = re.sub(rf"^{re.escape(ENCODER)}(model\.)?", BACKBONE, k)
    if k.startswith(BACKBONE):
        k = k.replace("embeddings.patch_embeddings.projection", "patch_embed.proj").replace("embeddings.norm", "patch_embed.norm").replace("encoder.layers", "layers")
        k = k.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2").replace("attention.output.dense", "attn.proj").replace("attention.self", "attn")
        k = k.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        k = re.sub(r"hidden_states_norms\.(?:stage(\d)|(\d))", lambda m: f"norm{int(m[1]) - 1 if m[1] else m[2]}", k)
        return re.sub(r"attn\.(query|key|value)\.", lambda m: f"attn.{m[1][0]}_proj.", k)
    k = k.replace("model.pixel_level_module.decoder.", PIXELS).replace("mask_projection", "mask_features")
    k = k.replace("fpn.stem", "layer_4")
    k = re.sub(r"fpn\.layers\.(\d)\.(proj|block)", lambda m: f"{'adapter' if m[2] == 'proj' else 'layer'}_{3 - int(m[1])}", k)
    k = re.sub(r"((?:adapter|layer)_\d)\.0\.", r"\1.", k)
    k = re.sub(r"((?:adapter|layer)_\d)\.1\.", r"\1.norm.", k)
    k = k.replace("model.transformer_module.decoder.layers.", PREDICTOR + "transformer.decoder.layers.").replace("model.transformer_module.decoder.layernorm", PREDICTOR + "transformer.decoder.norm")
    k = k.replace("self_attn_layer_norm", "norm1").replace("encoder_attn_layer_norm", "norm2").replace("final_layer_norm", "norm3").replace("encoder_attn", "multihead_attn")
    k = k.replace("mlp.fc", "linear").replace(".o_proj.", ".out_proj.")
    k = k.replace("model.transformer_module.queries_embedder", PREDICTOR + "query_embed").replace("model.transformer_module.input_projection", PREDICTOR + "input_proj")
    return re.sub(r"^mask_embedder\.(\d)\.0", PREDICTOR + r"mask_embed.layers.\1", k)


def place(k, rename):
    """The name of the tensor that has one of the library's, and which third of it that is, None for all."""
    name = rename(k)
    part = re.search(r"\.([qkv])_proj\.", name)
    if not part:
        return name, None
    return name.replace(part[0], ".qkv." if name.startswith(BACKBONE) else ".in_proj_"), "qkv".index(part[1])


def write(state, rename):
    """The library's tensors as detectron2 has them."""
    whole, thirds = {}, {}
    for k, x in state.items():
        name, third = place(k, rename)
        if third is None:
            whole[name] = x
        else:
            thirds.setdefault(name, [None] * 3)[third] = x
    return whole | {name: torch.cat(parts) for name, parts in thirds.items()}


def read(keys, tensors, rename):
    """The library's tensors with these keys, out of detectron2's."""
    state = {}
    for k in keys:
        name, third = place(k, rename)
        if name not in tensors:
            raise SystemExit(f"the checkpoint lacks {name}")
        state[k] = tensors[name] if third is None else tensors[name].chunk(3)[third]
    return state
