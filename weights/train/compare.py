"""Tables of what compare.sh has run, in Markdown.

    python compare.py --runs WORK/compare

Only seeds whose both runs are complete count. Figures are mean ± standard deviation over the seeds (n − 1); "difference" is on
minus off of the same seed, and its last entry tells in how many of the seeds on was the higher one.
"""
import argparse
import json
import re
import statistics
from pathlib import Path

import torch

COLUMNS = {"recall50": "recall .5", "recall75": "recall .75", "oracle": "oracle mIoU", "full": "all names, mIoU",
           "present": "present names, mIoU", "single": "single prompt, IoU", "auc": "presence AUC", "auc_single": "AUC, alone"}


def shown(key, value):
    """Points with one digit; areas under a curve with three, as everywhere in the project."""
    return f"{value:.3f}" if key.startswith("auc") else f"{100 * value:.1f}"


def spread(key, values, sign=""):
    mean = statistics.mean(values)
    text = sign * (mean >= 0) + shown(key, mean)
    return text + (f" ± {shown(key, statistics.stdev(values))}" if len(values) > 1 else "")


def heading(*cells):
    print("\n| " + " | ".join(cells) + " |\n|" + "---|" * len(cells))


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |")


def cost(run):
    """Parameters of the decoders, and seconds a step of the clock and of the processor, from a run's checkpoint and log."""
    model = torch.load(run / "last.pt", weights_only=True)["model"]
    steps = re.findall(r"^step (\d+) .* (\d+) s, of the processor (\d+) s$", (run / "log.txt").read_text(), re.M)
    step, clock, processor = map(int, steps[-1])
    return sum(v.numel() for k, v in model.items() if k.startswith(("pixel.", "decoder."))), clock / step, processor / step


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", required=True)
    args = p.parse_args()
    runs = Path(args.runs)
    complete = lambda kind: {f.parent.name.removeprefix(f"{kind}-") for f in runs.glob(f"{kind}-*/figures.json")}
    seeds = sorted(complete("on") & complete("off"), key=int)
    figures = {kind: [json.loads((runs / f"{kind}-{s}/figures.json").read_text()) for s in seeds] for kind in ("off", "on")}

    heading("photos", "text", *COLUMNS.values())
    for name in figures["on"][0]:
        pairs = {key: [[f[name][key] for f in figures[kind]] for kind in ("off", "on")] for key in COLUMNS}
        row(name, "off", *(spread(key, off) for key, (off, _) in pairs.items()))
        row("", "on", *(spread(key, on) for key, (_, on) in pairs.items()))
        row("", "difference", *(spread(key, [b - a for a, b in zip(off, on)], "+") + f", {sum(b > a for a, b in zip(off, on))}/{len(seeds)}"
                                for key, (off, on) in pairs.items()))

    heading("photos", "seed", "text", *COLUMNS.values())
    for name in figures["on"][0]:
        for i, seed in enumerate(seeds):
            for kind in ("off", "on"):
                row(name, seed, kind, *(shown(key, figures[kind][i][name][key]) for key in COLUMNS))

    heading("seed", "text", "trained parameters", "seconds a step", "processor seconds a step", "theta", "alpha")
    for seed in seeds:
        for kind in ("off", "on"):
            run = runs / f"{kind}-{seed}"
            parameters, clock, processor = cost(run)
            config = json.loads((run / "export/config.json").read_text())
            row(seed, kind, f"{parameters:,}", f"{clock:.2f}", f"{processor:.2f}", config["theta"], config["alpha"])


if __name__ == "__main__":
    main()
