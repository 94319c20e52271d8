"""The numbers of `lmdyn measure` and `lmdyn online`, by their definitions in PyTorch.

    python scripts/reference.py gguf:model.gguf measure --data text:book.txt --tokens 12288 \\
      --out rows.jsonl
    python scripts/reference.py dir:model online --data text:book.txt --chunk 512 --lr 0.01 \\
      --out rows.jsonl

Nothing here imports lmdyn, and nothing here is meant to be fast: the model is the one of
`transformers`, the quantities are taken with hooks, sums are float64. `scripts/compare.py` compares
the two.

Needs `pip install .[bench]` (torch, transformers). Takes one forward pass per token (measure), or
two forward passes and a backward pass (online): SmolLM2-135M on 2 cores measures about 400 tokens
per second and adapts on about 130.
"""

import argparse
import contextlib
import glob
import json
import math
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

METRICS = (
    "nll",
    "knowledge_entropy",
    "attention_entropy",
    "prediction_entropy",
    "anisotropy",
    "singular_entropy",
)


# --- model, tokenizer and text


def load(ref, attention="eager", dtype=torch.float32):
    """The model (evaluation mode) and a function from text to a list of token ids, of `gguf:PATH`
    or `dir:PATH`.
    """
    kind, _, path = ref.partition(":")
    path = Path(path)
    if kind not in ("gguf", "dir") or not path.exists():
        sys.exit(f"{ref}: need gguf:FILE or dir:FOLDER that exists")
    source = {"pretrained_model_name_or_path": str(path)}
    if kind == "gguf":
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=dtype, attn_implementation=attention
    ).eval()
    if kind == "dir" and (path / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    else:
        tokenizer = Tokenizer.from_str(
            AutoTokenizer.from_pretrained(**source).backend_tokenizer.to_str()
        )
        if kind == "gguf":
            split_as_trained(tokenizer, path)
    return model, tokenizer


def split_as_trained(tokenizer, path):
    """Restores the splitting rule that a GGUF names and the conversion in `transformers` drops.

    SmolLM's own tokenizer puts every digit by itself before the rule of GPT-2; without it, white
    space before a number is cut differently.
    """
    import gguf

    field = gguf.GGUFReader(path).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )


def read_stream(ref, tokenizer, tokens=None):
    """Token ids [N + 1] of `text:GLOB`: one document a file, joined by the end-of-text token, at
    most `tokens` + 1.
    """
    kind, _, pattern = ref.partition(":")
    paths = sorted(glob.glob(pattern, recursive=True))
    if kind != "text" or not paths:
        sys.exit(f"{ref}: need text:GLOB that matches a file")
    end = tokenizer.token_to_id("<|endoftext|>")
    stream = []
    for number, path in enumerate(paths):
        text = Path(path).read_bytes().decode("utf-8")
        if number and end is None:
            sys.exit(
                f"{ref}: several documents, and the tokenizer has no <|endoftext|> to join them"
            )
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        stream += ([end] if stream and ids else []) + ids
    return torch.tensor(stream[: None if tokens is None else tokens + 1])


def parts(model):
    """(blocks, the matrix `down` of each block's MLP, the norm after the last block), by the
    families' names.
    """
    body = model.base_model
    if hasattr(body, "layers"):
        blocks = list(body.layers)
        norm = body.final_layer_norm if hasattr(body, "final_layer_norm") else body.norm
    else:
        blocks, norm = list(body.h), body.ln_f
    names = ("down_proj", "dense_4h_to_h", "c_proj")
    downs = [next(getattr(b.mlp, name) for name in names if hasattr(b.mlp, name)) for b in blocks]
    return blocks, downs, norm


# --- measuring


class Sums:
    """What hooks add up: everything that needs the inside of the model, in float64.

    `coefficients`: per layer, sum over tokens of |c_i|; c is the input of `down`
    (docs/methods.md). `directions`: per site, sum over tokens of the unit vectors.
    `attention`: per layer, the sum over heads and queries of the attention distribution's entropy,
    and how many there were.
    """

    def __init__(self, model):
        blocks, downs, norm = parts(model)
        self.coefficients = [0.0] * len(blocks)
        self.attention = [0.0] * len(blocks)
        self.directions = {
            **{("residual", i): 0.0 for i in range(len(blocks) + 1)},
            ("final", None): 0.0,
        }
        self.tokens = self.distributions = 0
        blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: self.direct(
                ("residual", 0), args[0] if args else kwargs["hidden_states"]
            ),
            with_kwargs=True,
        )
        for i, (block, down) in enumerate(zip(blocks, downs, strict=True)):
            down.register_forward_pre_hook(lambda _, args, i=i: self.remember(i, args[0]))
            block.register_forward_hook(
                lambda _, args, out, i=i: self.direct(
                    ("residual", i + 1), out[0] if isinstance(out, tuple) else out
                )
            )
        norm.register_forward_hook(lambda _, args, out: self.direct(("final", None), out))

    def remember(self, layer, c):
        self.coefficients[layer] = self.coefficients[layer] + c.double().abs().flatten(0, -2).sum(0)

    def direct(self, site, x):
        u = x.double().flatten(0, -2)
        self.directions[site] = self.directions[site] + (u / u.norm(dim=-1, keepdim=True)).sum(0)

    def attend(self, attentions):
        for i, p in enumerate(attentions):
            self.attention[i] += torch.special.entr(p.double()).sum().item()
        self.distributions += attentions[0].shape[:3].numel()


def measure(model, stream, length, metrics):
    """The rows of `measure`: one forward a window of `length` predictions, the ragged last one at
    its own length.
    """
    sums, nll, entropy = Sums(model), 0.0, 0.0
    wanted = {"output_attentions": "attention_entropy" in metrics, "use_cache": False}
    with torch.no_grad():
        for start in tqdm(range(0, len(stream) - 1, length), "measure", disable=None):
            window = stream[start : start + length + 1]
            out = model(window[None, :-1], **wanted)
            log_p = out.logits[0].double().log_softmax(-1)
            nll -= log_p.gather(-1, window[1:, None]).sum().item()
            entropy -= (log_p.exp() * log_p).sum().item()
            sums.tokens += len(window) - 1
            if wanted["output_attentions"]:
                sums.attend(out.attentions)
    n = sums.tokens
    rows = []
    if "nll" in metrics:
        rows.append(row("nll", None, None, nll / n))
    if "knowledge_entropy" in metrics:
        entropies = [distribution_entropy(c) for c in sums.coefficients]
        rows += [
            row("knowledge_entropy", "mlp", i, h, share=h / math.log(len(c)))
            for i, (h, c) in enumerate(zip(entropies, sums.coefficients, strict=True))
        ] + [row("knowledge_entropy", "mlp", None, sum(entropies))]
    if "attention_entropy" in metrics:
        values = [total / sums.distributions for total in sums.attention]
        rows += [row("attention_entropy", "attention", i, value) for i, value in enumerate(values)]
        rows.append(row("attention_entropy", "attention", None, sum(values) / len(values)))
    if "prediction_entropy" in metrics:
        rows.append(row("prediction_entropy", None, None, entropy / n))
    if "anisotropy" in metrics:
        for (site, layer), total in sums.directions.items():
            rows.append(
                row(
                    "anisotropy",
                    site,
                    layer,
                    ((total @ total).item() - n) / (n * n - n),
                    unit="cosine",
                )
            )
    if "singular_entropy" in metrics:
        s = torch.linalg.svdvals(model.get_output_embeddings().weight.detach().double())
        rows.append(
            row("singular_entropy", "head", None, math.log(len(s)) - distribution_entropy(s))
        )
    return rows, n


def distribution_entropy(weights):
    """Entropy in nats of non-negative weights [F], normalised: log F if all are equal, 0 if only
    one is not 0.
    """
    return torch.special.entr(weights / weights.sum()).sum().item()


def row(metric, site, layer, value, unit="nats", **extra):
    return {"metric": metric, "site": site, "layer": layer, "value": value, "unit": unit, **extra}


# --- online adaptation


def online(model, stream, chunk, context, window, adapt=None, make_optimizer=None):
    """(nll [N] of every prediction, scored before its chunk's update; FLOPs of all products).
    Changes the model.

    Without `make_optimizer` (parameters -> torch optimizer) the evaluation is static.
    """
    model.requires_grad_(False)
    optimizer = None
    if make_optimizer:
        optimizer = make_optimizer([p.requires_grad_(True) for p in select(model, adapt)])
    memory, nll, flops, counted = None, [], 0.0, {}
    bar = tqdm(range(0, len(stream) - 1, chunk), "online" if optimizer else "static", disable=None)
    for start in bar:
        targets = stream[start + 1 : start + chunk + 1]
        stop = start + len(targets)
        first = max(0, stop - window) if context == "overlap" else start
        shape = (stop - first, memory[0][0].shape[2] if memory else 0)
        counter = contextlib.nullcontext() if shape in counted else FlopCounterMode(display=False)
        with torch.set_grad_enabled(optimizer is not None), counter:
            logits, kept = forward(model, stream[first:stop], first, memory, context == "cache")
            scores = F.cross_entropy(logits[-len(targets) :].double(), targets, reduction="none")
            if optimizer:
                optimizer.zero_grad(set_to_none=True)
                scores.mean().backward()
        nll.append(scores.detach())
        if shape not in counted:
            counted[shape] = counter.get_total_flops()
        flops += counted[shape]
        if context == "cache":
            memory = (
                [(k[:, :, -window:].detach(), v[:, :, -window:].detach()) for k, v in kept]
                if window
                else None
            )
        if optimizer:
            optimizer.step()
        bar.set_postfix(nll=f"{torch.cat(nll).double().mean():.4f}")
    return torch.cat(nll).float().numpy(), float(flops)


def forward(model, inputs, position, memory, keep):
    """(logits [T, V], keys and values of memory and inputs per layer), the first input standing at
    `position`.

    Every input sees the whole memory [1, G, M, K] and the inputs up to itself.
    """
    if not keep:
        return model(inputs[None], use_cache=False).logits[0], None
    cache, reach, t = DynamicCache(), memory[0][0].shape[2] if memory else 0, len(inputs)
    for layer, (k, v) in enumerate(memory or ()):
        cache.update(k, v, layer)
    hidden = torch.ones(t, reach + t, dtype=torch.bool).triu(reach + 1)
    mask = torch.zeros(1, 1, t, reach + t).masked_fill(hidden, torch.finfo(torch.float32).min)
    out = model(
        inputs[None],
        attention_mask=mask,
        position_ids=torch.arange(position, position + t)[None],
        past_key_values=cache,
        use_cache=True,
    )
    return out.logits[0], [(layer.keys, layer.values) for layer in cache.layers]


def exact_rotary(model):
    """Angles in float64: a float32 angle at position 10,000 is off by 1e-3, and the memory holds
    rotated keys.
    """
    found = [
        module for module in model.modules() if type(module).__name__.endswith("RotaryEmbedding")
    ]
    if not found:
        sys.exit(
            "--context cache needs rotary positions; this model has learned ones: use none or"
            " overlap"
        )

    def rotary(module, x, position_ids):
        angle = position_ids[..., None].double() * module.inv_freq.double()
        angle = torch.cat((angle, angle), -1)
        return [(f(angle) * module.attention_scaling).to(x.dtype) for f in (torch.cos, torch.sin)]

    for module in found:
        module.forward = lambda x, position_ids, module=module: rotary(module, x, position_ids)


PIECES = {  # selector -> parameter names of the Llama family in `transformers`
    "attention": r"self_attn\.",
    "attention.query": r"self_attn\.q_proj\.",
    "attention.key": r"self_attn\.k_proj\.",
    "attention.value": r"self_attn\.v_proj\.",
    "attention.output": r"self_attn\.o_proj\.",
    "attention_norm": r"input_layernorm\.",
    "mlp": r"mlp\.",
    "mlp.gate": r"mlp\.gate_proj\.",
    "mlp.up": r"mlp\.up_proj\.",
    "mlp.down": r"mlp\.down_proj\.",
    "mlp_norm": r"post_attention_layernorm\.",
    None: "",
}


def select(model, selector):
    """Parameters at a selector (`all`, `embed`, `head`, `final_norm`, `blocks[5:9].mlp`, joined by
    +); Llama only.
    """
    depth = model.config.num_hidden_layers
    names = dict(model.named_parameters())
    chosen = {}
    for part in selector.split("+"):
        block = re.fullmatch(r"blocks(?:\[(-?\d+)?(:)?(-?\d+)?\])?(?:\.([a-z_.]+))?", part)
        if block and block[4] in PIECES:
            low, colon, high = (block[1] and int(block[1]), block[2], block[3] and int(block[3]))
            at = range(depth)[slice(low, high)] if colon or low is None else [range(depth)[low]]
            pattern = rf"model\.layers\.({'|'.join(map(str, at))})\.{PIECES[block[4]]}"
        else:
            fixed = {
                "all": "",
                "embed": r"model\.embed_tokens\.",
                "head": r"lm_head\.",
                "final_norm": r"model\.norm\.",
            }
            pattern = fixed.get(part, "nothing")
        found = {name: p for name, p in names.items() if re.match(pattern, name)}
        if not found:
            sys.exit(f"--adapt {part} matches nothing")
        chosen |= found
    return list(chosen.values())


# --- command line


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="gguf:PATH or dir:PATH")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("measure", "online"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--data", required=True, help="text:GLOB")
        sub.add_argument("--tokens", type=int, help="stop after so many predictions")
        sub.add_argument("--out", type=Path, required=True, help="rows, JSON Lines")
        sub.add_argument("--threads", type=int, help="of PyTorch")
        if verb == "measure":
            sub.add_argument("--length", type=int, default=512)
            sub.add_argument("--metrics", default=",".join(METRICS))
        else:
            sub.add_argument("--chunk", type=int, default=512)
            sub.add_argument("--context", choices=("none", "cache", "overlap"), default="none")
            sub.add_argument(
                "--window", type=int, default=0, help="tokens; overlap counts the chunk too"
            )
            sub.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
            sub.add_argument("--lr", type=float, default=0.01)
            sub.add_argument("--weight-decay", type=float, default=1e-4, help="of adamw")
            sub.add_argument("--adapt", default="all")
    args = parser.parse_args(argv)
    if args.verb == "measure":
        args.metrics = args.metrics.split(",")
        if set(args.metrics) - set(METRICS):
            parser.error(f"--metrics are {', '.join(METRICS)}")
    elif args.context == "overlap" and args.window < args.chunk:
        parser.error(f"--window {args.window} must hold the chunk: use --window >= {args.chunk}")
    return args


def run_online(args, model, stream):
    """Rows of `online`, and the trace: the static run first, on the parameters as loaded."""
    if args.context == "cache":
        exact_rotary(model)
    optimizers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=args.lr),
        "adamw": lambda p: torch.optim.AdamW(p, lr=args.lr, weight_decay=args.weight_decay),
    }
    setting = (args.chunk, args.context, args.window)
    static, static_flops = online(model, stream, *setting)
    adapted, adapted_flops = online(model, stream, *setting, args.adapt, optimizers[args.optimizer])
    np.savez(args.out.with_name(args.out.name + ".trace.npz"), static=static, online=adapted)
    return [
        row("static_nll", None, None, float(static.mean(dtype=np.float64))),
        row("online_nll", None, None, float(adapted.mean(dtype=np.float64))),
        row("flops", "static", None, static_flops, unit="flop"),
        row("flops", "online", None, adapted_flops, unit="flop"),
    ]


def main(argv=None):
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    model, tokenizer = load(args.model)
    stream = read_stream(args.data, tokenizer, args.tokens)
    began = time.perf_counter()
    if args.verb == "measure":
        rows, _ = measure(model, stream, args.length, args.metrics)
    else:
        rows = run_online(args, model, stream)
    wall = time.perf_counter() - began
    n = len(stream) - 1
    with open(args.out, "w", encoding="utf-8") as file:
        for r in rows:
            file.write(json.dumps({"model": args.model, "step": None, **r, "tokens": n}) + "\n")
    meta = {
        "command": sys.argv,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "wall_seconds": wall,
        "tokens_per_second": n / wall,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    args.out.with_name(args.out.name + ".meta.json").write_text(
        json.dumps(meta, indent=1, default=str)
    )
    for r in rows:
        if r["metric"].endswith("nll"):
            print(f"{r['metric']} {r['value']:.6f} nats, perplexity {math.exp(r['value']):.3f}")
    print(f"{n} predictions in {wall:.1f} s; rows in {args.out}")


if __name__ == "__main__":
    main()
