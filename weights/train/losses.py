"""Losses of the mask decoder: Mask2Former's set prediction, on sampled cells, with the prompts as classes."""
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

CLASS, BCE, DICE, VOID = 2.0, 5.0, 5.0, 0.1


@torch.no_grad()
def match(logits, chances, batch):
    """Hungarian matching of one prediction: mask logits [B,Q,K], class chances [B,Q,T] → per picture (queries, targets)."""
    weights, targets, owners = batch["weights"], batch["targets"], batch["owners"]
    total = weights.sum(-1)[:, None, None].clamp_min(1e-6)
    weighted = targets * weights[:, None]                                 # [B,N,K]
    # softplus(−m) = softplus(m) − m turns the cross-entropy with every target into one product.
    bce = ((F.softplus(logits) * weights[:, None]).sum(-1, keepdim=True) - logits @ weighted.transpose(1, 2)) / total
    area = logits.sigmoid()
    both = area @ weighted.transpose(1, 2)
    dice = 1 - (2 * both + 1) / ((area * weights[:, None]).sum(-1, keepdim=True) + weighted.sum(-1)[:, None] + 1)
    named = chances.gather(2, owners.clamp_min(0)[:, None].expand(-1, logits.shape[1], -1))
    cost = (BCE * bce + DICE * dice - CLASS * named).nan_to_num(1e4).numpy()
    found = []
    for i, n in enumerate((owners >= 0).sum(1).tolist()):
        found.append([torch.as_tensor(v) for v in linear_sum_assignment(cost[i, :, :n])])
    return found


def set_loss(predictions, m4, batch):
    """The losses of all predictions (deep supervision). m4: mask features [B,dm,H,W]."""
    weights, targets, owners, valid = batch["weights"], batch["targets"], batch["owners"], batch["valid"]
    b, k = weights.shape
    # Masks are only formed at the sampled cells.
    features = m4.flatten(2).transpose(1, 2)                              # [B,H·W,dm]
    features = features.gather(1, batch["cells"][..., None].expand(-1, -1, features.shape[2]))
    embeds = torch.cat([p["mask_embed"] for p in predictions], 1)         # [B,n·Q,dm]
    every = (embeds @ features.transpose(1, 2)).float().chunk(len(predictions), 1)
    count = max(1, int((owners >= 0).sum()))
    soft = weights.sqrt()                                                 # border cells count more than their share
    soft = soft / soft.sum(-1, keepdim=True).clamp_min(1e-6)
    parts = {name: m4.new_zeros((), dtype=torch.float32) for name in ("class", "bce", "dice")}
    for logits, p in zip(every, predictions):
        classes = torch.cat((p["a"].float().masked_fill(~valid[:, None], -1e4), p["v"].float()[..., None]), -1)   # [B,Q,T+1]
        pairs = match(logits.detach(), classes.detach().softmax(-1), batch)
        picture = torch.cat([torch.full_like(q, i) for i, (q, _) in enumerate(pairs)])
        query, target = (torch.cat([pair[j] for pair in pairs]) for j in (0, 1))
        wanted = torch.full(classes.shape[:2], classes.shape[2] - 1)      # void
        wanted[picture, query] = owners[picture, target]
        importance = torch.full(wanted.shape, VOID)
        importance[picture, query] = 1.0
        ce = F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), reduction="none")
        parts["class"] = parts["class"] + (ce * importance.flatten()).sum() / importance.sum()
        if len(picture):
            m, t = logits[picture, query], targets[picture, target]       # [N,K]
            parts["bce"] = parts["bce"] + (F.binary_cross_entropy_with_logits(m, t, reduction="none") * soft[picture]).sum() / count
            s, w = m.sigmoid(), weights[picture]
            dice = 1 - (2 * (s * t * w).sum(-1) + 1) / ((s * w).sum(-1) + (t * w).sum(-1) + 1)
            parts["dice"] = parts["dice"] + dice.sum() / count
    return CLASS * parts["class"] + BCE * parts["bce"] + DICE * parts["dice"], {n: float(v.detach()) / len(predictions) for n, v in parts.items()}
