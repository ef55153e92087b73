#!/usr/bin/env python3
"""torch's own bf16 matmul at the eleven products of a LLaMA-7B step of 2,048 tokens, and its attention forward and backward at the same
sizes: what besad's figures of the same run are held against. Prints one JSON object; exits with 3 and the reason where it cannot run."""
import json
import statistics
import sys

try:
    import torch
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device")
except Exception as error:  # whatever an installation that does not work raises
    print(error, file=sys.stderr)
    sys.exit(3)

TOKENS, HIDDEN, INNER, HEADS = 2048, 4096, 11008, 32


def seconds(run, batches=9):
    """Median of one run, by events, over batches of about 20 ms."""
    def batch(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(runs):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3 / runs
    batch(1)
    runs = max(1, int(0.02 / batch(1)))
    return statistics.median(batch(runs) for _ in range(batches))


def random(*shape):
    return torch.rand(*shape, device="cuda", dtype=torch.bfloat16) - 0.5


def products():
    for name, rows, cols in (("qkv", 3 * HIDDEN, HIDDEN), ("o", HIDDEN, HIDDEN), ("gate_up", 2 * INNER, HIDDEN), ("down", HIDDEN, INNER)):
        weight, x, dy = random(rows, cols), random(TOKENS, cols), random(TOKENS, rows)
        each = {"forward": lambda: x @ weight.t(), "dX": lambda: dy @ weight, "dW": lambda: dy.t() @ x}
        for which, run in each.items():
            if (name, which) != ("qkv", "dX"):  # nothing needs that
                yield {"product": f"{name} {which}", "tflops": 2 * rows * cols * TOKENS / seconds(run) * 1e-12}


def attention(batch):
    q, k, v = (random(batch, HEADS, TOKENS, HIDDEN // HEADS).requires_grad_() for _ in range(3))

    def forward():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    out, dout = forward(), random(batch, HEADS, TOKENS, HIDDEN // HEADS)
    pairs = batch * TOKENS * (TOKENS + 1) / 2 * HIDDEN
    with torch.no_grad():
        ahead = seconds(forward)
    back = seconds(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
    return {"batch": batch, "forward_tflops": 4 * pairs / ahead * 1e-12, "backward_tflops": 10 * pairs / back * 1e-12}


print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
                  "products": list(products()), "attention": [attention(1), attention(4)]}))
