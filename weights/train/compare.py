"""Tables of what compare.sh has run, in Markdown.

    python compare.py --runs WORK/compare                              # text on against off
    python compare.py --runs WORK/compare --ablation WORK/no-null      # the text as it is against an ablation of it
    python compare.py --runs WORK/compare WORK/maskformer              # all pairs of several generators together
    python compare.py --runs WORK/unseen --names unseen                # of runs with UNSEEN=1: names left out of training, or "seen"

Only seeds whose both runs are complete count. Figures are mean ± standard deviation over the seeds (n − 1); "difference" is the
second kind minus the first of the same seed, and its last entry tells in how many of the seeds the second was the higher one.
"mean of sets" is the mean over the sets of photos, taken within a run.
"""
import argparse
import json
import re
import statistics
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from network import Network

COLUMNS = {"recall50": "recall .5", "recall75": "recall .75", "oracle": "oracle mIoU", "full": "all names, mIoU",
           "present": "present names, mIoU", "single": "single prompt, IoU", "auc": "presence AUC", "auc_single": "AUC, alone"}
# 97.5 % quantile of Student's t, by the number of pairs
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262, 11: 2.228, 12: 2.201}
PROMPTS = 20                                                               # for which the multiplications are counted


def shown(key, value):
    """Points with one digit; areas under a curve with three, as everywhere in the project."""
    return f"{value:.3f}" if key.startswith("auc") else f"{100 * value:.1f}"


def spread(key, values, sign=""):
    mean = statistics.mean(values)
    text = sign * (mean >= 0) + shown(key, mean)
    return text + (f" ± {shown(key, statistics.stdev(values))}" if len(values) > 1 else "")


def interval(values):
    """Half of the mean's 95 % interval."""
    n = len(values)
    return STUDENT[n] * statistics.stdev(values) / n ** 0.5 if n in STUDENT else float("inf")


def beyond_zero(values):
    """Whether the 95 % interval of the mean leaves zero out."""
    return abs(statistics.mean(values)) > interval(values)


def together(folders, names):
    """On minus off in the mean of sets, with its 95 % interval, over the pairs of all folders, and in how many of them on was ahead."""
    pairs = [(figures(off.parent, names), figures(on, names)) for f in folders for off in sorted(f.glob("off-*/figures.json"))
             if ((on := f / off.parent.name.replace("off", "on")) / "figures.json").exists()]
    gains = {key: [on["mean of sets"][key] - off["mean of sets"][key] for off, on in pairs] for key in pairs[0][0]["mean of sets"]}
    heading("pairs", *(COLUMNS[key] for key in gains))
    row(len(pairs), *(f"{spread(key, [statistics.mean(g)], '+')} ± {shown(key, interval(g))}, {sum(v > 0 for v in g)}/{len(g)}" for key, g in gains.items()))


def heading(*cells):
    print("\n| " + " | ".join(cells) + " |\n|" + "---|" * len(cells))


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |")


def figures(run, names=None):
    """{set: figures} of a run, and the mean of its sets; with names, those of the "unseen" or of the "seen" ones."""
    found = json.loads((run / "figures.json").read_text())
    if names:
        found = {name: f[names] for name, f in found.items() if names in f}
    known = [key for key in COLUMNS if all(key in f for f in found.values())]
    return found | {"mean of sets": {key: statistics.mean(f[key] for f in found.values()) for key in known}}


def cost(run):
    """Of a run: trained parameters, seconds a step of the clock and of the processor, and millions of multiplications of a
    request: of the pixel decoder, of the mask decoder and of its text steps."""
    saved = torch.load(run / "last.pt", weights_only=True)
    parameters = sum(v.numel() for k, v in saved["model"].items() if k.startswith(("pixel.", "decoder.")))
    steps = re.findall(r"^step (\d+) .* (\d+) s, of the processor (\d+) s$", (run / "log.txt").read_text(), re.M)
    step, clock, processor = map(int, steps[-1])
    network = Network(saved["config"]).requires_grad_(False)      # the counter wants no gradients either
    size = network.config["size"]
    features = {name: torch.zeros(1, c, size // int(name[1:]), size // int(name[1:])) for name, c in network.trunk.channels.items()}
    with FlopCounterMode(display=False) as counter:
        network.segment(network.encode_features(features), torch.zeros(1, PROMPTS, network.config["embed"]))
    million = {name: sum(v.values()) / 2e6 for name, v in counter.get_flop_counts().items()}      # two operations each
    text = sum(v for name, v in million.items() if name.endswith((".text", ".text_first", ".text_proj")))
    return parameters, clock / step, processor / step, million["PixelDecoder"], million["MaskDecoder"], text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", required=True, nargs="+")
    p.add_argument("--ablation", help="folder of runs whose text differs from that of --runs")
    p.add_argument("--names", choices=["unseen", "seen"], help="of runs with UNSEEN=1, only the figures of these names")
    args = p.parse_args()
    if len(args.runs) > 1:
        return together([Path(r) for r in args.runs], args.names)
    runs = Path(args.runs[0])
    kinds = {"off": (runs, "off"), "on": (runs, "on")}
    if args.ablation:
        kinds = {"as it is": (runs, "on"), Path(args.ablation).name: (Path(args.ablation), "on")}
    complete = [{f.parent.name.removeprefix(f"{kind}-") for f in folder.glob(f"{kind}-*/figures.json")} for folder, kind in kinds.values()]
    seeds = sorted(complete[0] & complete[1], key=int)
    found = {label: [figures(folder / f"{kind}-{s}", args.names) for s in seeds] for label, (folder, kind) in kinds.items()}
    first, second = found
    sets, columns = list(found[first][0]), list(found[first][0]["mean of sets"])

    heading("photos", "text", *map(COLUMNS.get, columns))
    clear = []
    for name in sets:
        pairs = {key: [[f[name][key] for f in found[label]] for label in found] for key in columns}
        row(name, first, *(spread(key, a) for key, (a, _) in pairs.items()))
        row("", second, *(spread(key, b) for key, (_, b) in pairs.items()))
        gains = {key: [y - x for x, y in zip(a, b)] for key, (a, b) in pairs.items()}
        row("", "difference", *(spread(key, g, "+") + f", {sum(v > 0 for v in g)}/{len(seeds)}" for key, g in gains.items()))
        clear += [f"{name} {COLUMNS[key]} {shown(key, statistics.mean(g))}" for key, g in gains.items() if beyond_zero(g)]
    print(f"\nThe 95 % interval (Student's t) leaves zero out in {len(clear)} of {len(sets) * len(columns)}: {'; '.join(clear) or 'none'}.")

    heading("seed", "text", "trained parameters", "processor seconds a step", "clock seconds a step", "M mult. pixel decoder",
            f"mask decoder, {PROMPTS} prompts", "of it text", "theta", "alpha")
    for seed in seeds:
        for label, (folder, kind) in kinds.items():
            run = folder / f"{kind}-{seed}"
            parameters, clock, processor, pixel, decoder, text = cost(run)
            config = json.loads((run / "export/config.json").read_text())
            row(seed, label, f"{parameters:,}", f"{processor:.3f}", f"{clock:.2f}", f"{pixel:.0f}", f"{decoder:.1f}", f"{text:.1f}",
                config["theta"], config["alpha"])

    heading("photos", "seed", "text", *map(COLUMNS.get, columns))
    for name in sets:
        for i, seed in enumerate(seeds):
            for label in found:
                row(name, seed, label, *(shown(key, found[label][i][name][key]) for key in columns))


if __name__ == "__main__":
    main()
