"""Makes the checkpoints that this package's tests read, with PyTorch and pickle, and truth.json, which says what is in them.

    python make.py        needs torch and numpy
"""
import collections
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
          torch.int32: "I32", torch.int16: "I16", torch.uint8: "U8", torch.bool: "BOOL", torch.int8: "I8"}
NUMPY = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "<i8": "I64", "<i4": "I32", "|u1": "U8", "|b1": "BOOL", "|i1": "I8"}
truth = {}


def said(tensor):
    rows = tensor.detach().contiguous()
    data = rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows
    return [DTYPES[tensor.dtype], list(tensor.shape), data.numpy().tobytes().hex()]


def names(state, prefix=""):
    out = {}
    for key, value in state.items():
        if isinstance(value, dict):
            out |= names(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            out[f"{prefix}{key}"] = said(value)
        elif isinstance(value, np.ndarray):
            out[f"{prefix}{key}"] = [NUMPY[value.dtype.str], list(value.shape), value.tobytes().hex()]
    return out


def save(name, thing, state, write):
    with open(HERE / name, "wb") as f:
        write(thing, f)
    truth[name] = names(state)


def tensors():
    torch.manual_seed(1)
    base = torch.randn(3, 4, 2)
    cube = torch.randn(2, 3, 4).permute(2, 0, 1)
    assert not cube.is_contiguous()
    state = collections.OrderedDict()
    state["float32"], state["tied"], state["part"] = base, base, base[1:, 1]
    state["transposed"], state["permuted"], state["step"] = base[0].T, cube, torch.arange(9.)[1::3]
    state["expanded"] = torch.tensor([[1.5], [-2.]]).expand(2, 3)
    state["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    state["float16"], state["bfloat16"] = torch.randn(3).half(), torch.randn(3).bfloat16()
    state["float64"], state["int64"] = torch.randn(2).double(), torch.tensor(-(1 << 40))
    state["int32"], state["uint8"], state["int8"] = torch.tensor([-70000]).int(), torch.tensor([0, 255]).byte(), torch.tensor([-128, 127]).char()
    state["bool"], state["int16"], state["empty"] = torch.tensor([[True], [False]]), torch.tensor([-300]).short(), torch.zeros(0, 3)
    state["block"] = {"0": {"weight": torch.randn(1, 2)}, 1: torch.randn(1)}
    state._metadata = {"": {"version": 1}}
    return state


def arrays():
    r = np.random.default_rng(1)
    big = r.standard_normal((2, 3, 4))
    return {"stem.conv1.weight": big.astype(np.float32), "fortran": np.asfortranarray(big.astype(np.float32)),
            "float16": big[0, 0].astype(np.float16), "float64": big[0, :, 0], "int64": np.array([-1, 1 << 40]), "int32": np.int32([[7]]),
            "uint8": np.uint8([0, 127, 128, 255]), "int8": np.int8([-1]), "bool": np.array([True, False]), "one": np.array(2.5), "empty": np.zeros((0, 2), np.float32)}


class Python2(pickle._Pickler):
    """Writes texts and bytes as Python 2 did."""
    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        data = text.encode("latin1") if isinstance(text, str) else text
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_text


class Call:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def main():
    state = tensors()
    whole = {"config": {"d": 128, "ratio": 0.5, "names": ["a", None], "large": 1 << 40, "wrong": torch.zeros(1)}, "model": state, "step": 7,
             "optimiser": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"betas": (0.9, 0.99), "params": [0]}]}}
    save("zip.pth", whole, state, torch.save)
    save("legacy.pth", whole, state, lambda x, f: torch.save(x, f, _use_new_zipfile_serialization=False))
    few = {k: state[k] for k in ("float32", "tied", "transposed", "bfloat16", "parameter")}
    for protocol in (3, 4, 5):
        save(f"zip{protocol}.pth", {"state_dict": few}, few, lambda x, f: torch.save(x, f, pickle_protocol=protocol))
        save(f"legacy{protocol}.pth", few, few,
             lambda x, f: torch.save(x, f, pickle_protocol=protocol, _use_new_zipfile_serialization=False))

    found = arrays()
    for protocol in (2, 3, 4, 5):
        save(f"detectron{protocol}.pkl", {"model": found, "__author__": "us", "matching_heuristics": True, "lr": np.float64(0.1)}, found,
             lambda x, f: pickle.dump(x, f, protocol=protocol))
    blobs = {"conv1_w": found["stem.conv1.weight"], "res_conv1_bn_s": found["uint8"], "f\xe9": np.arange(100, dtype=np.float32)}
    save("caffe2.pkl", {"blobs": blobs}, blobs, lambda x, f: Python2(f, 2).dump(x))
    again = pickle.loads((HERE / "caffe2.pkl").read_bytes(), encoding="latin1")["blobs"]
    assert again.keys() == blobs.keys() and all((again[k] == blobs[k]).all() for k in blobs)

    (HERE / "evil0.pkl").write_bytes(b"cos\nsystem\n(S'echo pwned'\ntR.")
    with open(HERE / "evil4.pkl", "wb") as f:
        pickle.dump({"model": found["uint8"], "more": Call(print, "pwned")}, f, protocol=4)
    with open(HERE / "evil2.pkl", "wb") as f:
        pickle.dump({"model": Call(__import__("os").system, "echo pwned")}, f, protocol=2)
    torch.save({"model": {"a": torch.zeros(1)}, "more": Call(eval, "print('pwned')")}, HERE / "evil.pth")
    with zipfile.ZipFile(HERE / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("x/data.pkl", b"\x80\x02" + b"]0" * 500000 + b"].")
    (HERE / "truth.json").write_text("{\n" + ",\n".join(f' "{k}": {json.dumps(v)}' for k, v in truth.items()) + "\n}\n")


if __name__ == "__main__":
    main()
