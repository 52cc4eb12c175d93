"""A network of the transformers library whose queries read prompts, and its losses."""
import torch
import torch.distributed as dist
from torch import nn

from network import TextReader, TextStep


class Guidance(TextReader):
    """The names of its tensors are those of our own mask decoder."""

    def __init__(self, d, heads, layers, width):
        super().__init__()
        self.read_text(d, heads, width)
        self.layers = nn.ModuleList(nn.ModuleDict({"text": TextStep(d, heads)}) for _ in range(layers))


def in_float32(forward):
    """A pixel decoder's forward without mixed precision, which its sampling positions do not bear."""
    def run(features, *rest, **named):
        with torch.autocast(features[0].device.type, enabled=False):
            return forward([f.float() for f in features], *rest, **named)
    return run


class GuidedBase(nn.Module):
    """A base whose queries read embeddings of prompts of some width, or none."""

    def __init__(self, base, width=None):
        super().__init__()
        self.base = base
        self.mask2former = base.config.model_type == "mask2former"
        c = base.config if self.mask2former else base.config.decoder_config
        if getattr(c, "pre_norm", False) or getattr(c, "auxiliary_loss", False):
            raise SystemExit("a base with pre_norm, or with decoder_config.auxiliary_loss, cannot be trained here, nor can pmp import it")
        self.decoder, layers = self.transformer().decoder, self.transformer().decoder.layers
        heads = c.num_attention_heads if self.mask2former else c.decoder_attention_heads
        self.guidance = Guidance(c.hidden_size, heads, len(layers), width) if width else None
        self.decoder.register_forward_pre_hook(self.begin, with_kwargs=True)
        for i, layer in enumerate(layers):
            if width:
                norm = layer.cross_attn_layer_norm if self.mask2former else layer.encoder_attn_layer_norm
                norm.register_forward_hook(lambda _, __, x, step=self.guidance.layers[i]["text"]: self.read(step, x))
            if not self.mask2former:
                layer.register_forward_hook(lambda _, __, x: self.hidden.append(x))
        pixels = base.model.pixel_level_module.decoder
        pixels.forward = in_float32(pixels.forward)
        self.norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        # The last norm of a Swin as a classifier: a backbone has it, and does not compute it.
        idle = [m for name, m in base.model.pixel_level_module.encoder.named_modules() if name in ("swin.layernorm", "model.layernorm")]
        for m in self.norms + idle:
            m.requires_grad_(False)

    def transformer(self):
        return self.base.model.transformer_module

    def train(self, mode=True):
        """Batch norms keep their statistics, as in the published recipes."""
        super().train(mode)
        for m in self.norms:
            m.eval()
        return self

    def read(self, step, x):
        """The text step on queries, which Mask2Former keeps as [Q,B,d]."""
        x = x.transpose(0, 1) if self.mask2former else x
        x = step(x, self.transformer().queries_embedder.weight, *self.tokens)
        return x.transpose(0, 1) if self.mask2former else x

    def begin(self, _, args, named):
        self.hidden = []
        if self.guidance is None:
            return None
        return args, named | {"inputs_embeds": self.read(self.guidance.text_first, named["inputs_embeds"])}

    def predictions(self, pixels):
        """Queries behind the last norm [B,Q,d] and mask logits [B,Q,H/4,W/4] before the first layer, if the base predicts there,
        and after each, and the mask features [B,C,H/4,W/4]."""
        if self.mask2former:
            out = self.base.model(pixel_values=pixels, output_hidden_states=True)
            states = [x.transpose(0, 1) for x in out.transformer_decoder_intermediate_states]
            return states, out.masks_queries_logits, out.pixel_decoder_last_hidden_state
        out = self.base.model(pixel_values=pixels)
        features = out.pixel_decoder_last_hidden_state
        states = [*(self.decoder.layernorm(x) for x in self.hidden[:-1]), out.transformer_decoder_last_hidden_state]
        return states, [torch.einsum("bqc,bchw->bqhw", self.base.mask_embedder(x), features) for x in states], features

    def classify(self, queries, masks, features):
        return self.base.class_predictor(queries)

    def forward(self, pixels, text=None, valid=None):
        """Pixels [B,3,H,W], embeddings [B,T,width] of which valid ones exist → the predictions after each layer, the last one
        last: class logits [B,Q,L+1] and mask logits [B,Q,H/4,W/4]."""
        if self.guidance is not None:
            self.tokens = self.guidance.text_tokens(text, valid)
        states, masks, features = self.predictions(pixels)
        return [(self.classify(x, m, features), m) for x, m in zip(states, masks)]

    def inputs(self, batch, embeddings):
        """What forward takes of a batch and the embeddings of all phrases."""
        at = embeddings.device
        return batch["pixels"].to(at), embeddings[batch["prompts"].to(at)], batch["valid"].to(at)

    def losses(self, predictions, masks, labels):
        """The base's own losses by their names, each the sum over all predictions. Their mean over the processes is what one
        process would compute of all examples."""
        predictions = [(c.float(), m.float()) for c, m in predictions]
        *before, (classes, found) = predictions
        void, queries = self.base.criterion.eos_coef, classes.shape[1]
        matched = sum(min(len(x), queries) for x in labels)
        ours = torch.tensor([sum(len(x) for x in labels), matched + void * (len(labels) * queries - matched)], device=classes.device)
        mean = ours.clone()
        if dist.is_initialized():
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.base.criterion.get_num_masks = lambda *_, **__: mean[0].clamp(min=1)
        parts = self.base.get_loss_dict(found, classes, masks, labels, [{"masks_queries_logits": m, "class_queries_logits": c} for c, m in before])
        sums = {name: sum(v for k, v in parts.items() if k.startswith(name)) for name in self.base.weight_dict}
        sums["loss_cross_entropy"] = sums["loss_cross_entropy"] * ours[1] / mean[1]
        return sums
