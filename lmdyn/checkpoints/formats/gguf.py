"""GGUF files (llama.cpp).

Metadata become a `ModelConfig` and a tokenizer, tensors are dequantised one at a time.
"""

import functools

import jax
import numpy as np

from lmdyn.checkpoints.assemble import Checkpoint, Place, TensorSource, assemble
from lmdyn.checkpoints.families import FAMILIES, Rule, fused, linear, norm, unsupported
from lmdyn.checkpoints.formats.gguf_header import Header, decode, read_header
from lmdyn.checkpoints.layouts import halves_from_pairs
from lmdyn.data.tokenizers import Tokenizer, from_gguf
from lmdyn.errors import InputError, choose
from lmdyn.models.config import ModelConfig, RotaryScaling
from lmdyn.models.matrices.quantized import BLOCK_FORMATS, QuantizedMatrix, from_bytes
from lmdyn.types import PathLike

# GGUF architecture -> family, activation, layout of queries and keys. llama.cpp's converter
# permutes the rows of queries and keys to rotary pairs for the architectures whose graph rotates
# pairs (Llama, OLMo 1); the others keep halves.
ARCHITECTURES = {
    "gpt2": ("gpt2", "gelu_tanh", "transposed"),
    "gptneox": ("gpt_neox", "gelu", "transposed"),
    "llama": ("llama", "silu", "pairs"),
    "olmo": ("olmo", "silu", "pairs"),
    "olmo2": ("olmo2", "silu", "transposed"),
    "qwen2": ("qwen2", "silu", "transposed"),
    "qwen3": ("qwen3", "silu", "transposed"),
}
# Keys that change what is computed, and the value with which they change nothing.
_NEUTRAL = {
    "attention.sliding_window": 0,
    "expert_count": 0,
    "attn_logit_softcapping": 0.0,
    "final_logit_softcapping": 0.0,
    "logit_scale": 1.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
    "attention.max_alibi_bias": 0.0,
    "attention.temperature_scale": 0.0,
    "attention.shared_kv_layers": 0,
}
_BLOCK = "blk.{layer}."


def _rules(layout: str, output_norms: bool) -> tuple[Rule, ...]:
    attention_norm, mlp_norm = (
        ("post_attention_norm", "post_ffw_norm") if output_norms else ("attn_norm", "ffn_norm")
    )
    return (
        Rule("embed/embedding", "token_embd.weight"),
        Rule("positions/embedding", "position_embd.weight"),
        *norm("blocks/attention_norm", _BLOCK + attention_norm),
        *linear("blocks/attention/query", _BLOCK + "attn_q", layout),
        *linear("blocks/attention/key", _BLOCK + "attn_k", layout),
        *linear("blocks/attention/value", _BLOCK + "attn_v"),
        *linear("blocks/attention/output", _BLOCK + "attn_output"),
        *norm("blocks/attention/query_norm", _BLOCK + "attn_q_norm"),
        *norm("blocks/attention/key_norm", _BLOCK + "attn_k_norm"),
        *norm("blocks/mlp_norm", _BLOCK + mlp_norm),
        *linear("blocks/mlp/gate", _BLOCK + "ffn_gate"),
        *linear("blocks/mlp/up", _BLOCK + "ffn_up"),
        *linear("blocks/mlp/down", _BLOCK + "ffn_down"),
        *norm("final_norm", "output_norm"),
        Rule("head/kernel", "output.weight", "transposed"),
    )


def gguf_rules(architecture: str, joined: bool) -> tuple[Rule, ...]:
    """Where the parameters of a GGUF architecture are stored.

    Args:
      architecture: a key of `ARCHITECTURES`.
      joined: whether queries, keys and values share one tensor, `attn_qkv`.

    >>> rules = gguf_rules("gptneox", joined=True)
    >>> [rule.source for rule in rules if rule.path.endswith("query/kernel")]
    ['blk.{layer}.attn_qkv.weight']
    """
    found = _rules(ARCHITECTURES[architecture][2], output_norms=architecture == "olmo2")
    if not joined:
        return found
    together = fused(_BLOCK + "attn_qkv", "fused_rows")
    replaced = {rule.path for rule in together}
    return (*(rule for rule in found if rule.path not in replaced), *together)


def read_gguf(
    path: PathLike,
    name: str = "gguf",
    packed: bool = False,
    end_of_text: str | int | None = None,
    pre: str | None = None,
) -> tuple[Checkpoint, Tokenizer]:
    """The model and the tokenizer of a GGUF file.

    Args:
      path: of the file, or of one of several that hold the model together.
      name: of the tokenizer, for reports.
      packed: matrices of the kinds that `lmdyn.models.QuantizedMatrix` knows stay quantised; the
        others become float32.
      end_of_text: see `lmdyn.data.tokenizers.from_gguf`.
      pre: how the tokenizer cuts text, see `lmdyn.data.tokenizers.from_gguf`.

    Raises:
      InputError: the file is missing, damaged, of an unknown architecture, or holds what
        `ModelConfig` cannot express.

    >>> read_gguf("no/such.gguf")  # else a `Checkpoint` and its `Tokenizer`
    Traceback (most recent call last):
    lmdyn.errors.InputError: no/such.gguf cannot be read: No such file or directory; check the
    path
    """
    header = read_header(path)
    architecture = str(header.fields.get("general.architecture"))
    if architecture not in ARCHITECTURES:
        raise InputError(f"{path}: {unsupported('architecture', architecture, ARCHITECTURES)}")
    try:
        config = gguf_config(header, architecture)
    except InputError:
        raise
    except (
        TypeError,
        ValueError,
        ZeroDivisionError,
        OverflowError,
        AttributeError,
    ) as err:  # a value of an unforeseen type
        raise InputError(
            f"{path}: its metadata are malformed: {' '.join(str(err).split())}"
        ) from err
    tokenizer = from_gguf(header.fields, name, end_of_text, pre)
    joined = "blk.0.attn_qkv.weight" in header.tensors
    source = TensorSource(
        str(path),
        {n: t.shape for n, t in header.tensors.items()},
        lambda *rows: decode(header, *rows),
    )
    keep = functools.partial(_packed, header, config) if packed else None
    params = assemble(
        config,
        gguf_rules(architecture, joined),
        source,
        (r"rope_freqs\.weight", r".*\.attn_rot_embd"),
        keep,
    )
    return Checkpoint(config, params), tokenizer


def _packed(header: Header, config: ModelConfig, place: Place) -> QuantizedMatrix | None:
    """A leaf as the file has it, or None: of another kind, fused with its neighbours, no matrix."""
    tensors = [header.tensors[name] for name in place.sources()]
    kind = tensors[0].kind.name
    embedding = place.rule.layout == "plain" and len(place.shape) == 2
    if kind not in BLOCK_FORMATS or any(t.kind.name != kind for t in tensors):
        return None
    if not (embedding or place.rule.layout in ("transposed", "pairs")):
        return None
    rows = [t.raw.reshape(t.shape[0], -1) for t in tensors]
    if place.rule.layout == "pairs":
        rows = [halves_from_pairs(r, config.head_width) for r in rows]
    found = from_bytes(rows[0] if place.layers is None else np.stack(rows), kind)
    for half in (found.scale, found.offset):
        if half is not None and not np.isfinite(half).all():
            raise InputError(
                f"tensor {place.sources()[0]} holds NaN or infinity; the checkpoint is damaged or"
                " diverged"
            )
    return jax.tree.map(jax.device_put, found)


def gguf_config(header: Header, architecture: str) -> ModelConfig:
    """The architecture that the metadata and the tensors' names describe.

    Args:
      header: of the file.
      architecture: its `general.architecture`, a key of `ARCHITECTURES`.

    Raises:
      InputError: a key is missing, or describes what `ModelConfig` cannot express.

    >>> import gguf
    >>> from lmdyn.checkpoints.formats import gguf_header
    >>> table = gguf_header.Tensor(
    ...     (11, 6), gguf.GGMLQuantizationType.F32, np.zeros(264, np.uint8)
    ... )
    >>> sizes = {
    ...     "embedding_length": 6,
    ...     "block_count": 2,
    ...     "attention.head_count": 3,
    ...     "feed_forward_length": 10,
    ...     "context_length": 16,
    ... }
    >>> fields = {f"qwen2.{key}": value for key, value in sizes.items()}
    >>> config = gguf_config(Header(fields, {"token_embd.weight": table}), "qwen2")
    >>> config.vocab, config.depth, config.head_width, config.tied_head
    (11, 2, 2, True)
    """
    fields, names = header.fields, header.tensors
    family, activation, layout = ARCHITECTURES[architecture]
    _refuse(fields, architecture)
    width = _whole(fields, f"{architecture}.embedding_length")
    heads = _whole(fields, f"{architecture}.attention.head_count")
    entry = FAMILIES[family]
    eps = (
        f"{architecture}.attention.layer_norm_rms_epsilon"
        if entry.fixed["norm"] == "rms"
        else f"{architecture}.attention.layer_norm_epsilon"
    )
    if "token_embd.weight" not in names:
        raise InputError(
            "tensor token_embd.weight is missing; the GGUF file is cut short or no language model"
        )
    turning = fields.get(f"{architecture}.rope.dimension_count")
    head_width = fields.get(f"{architecture}.attention.key_length") or width // max(heads, 1)
    if fields.get(f"{architecture}.attention.value_length", head_width) != head_width:
        raise InputError(
            f"{architecture}.attention.value_length differs from key_length={head_width}; they must"
            " be equal"
        )
    found = {
        "vocab": names["token_embd.weight"].shape[0],
        "width": width,
        "depth": _whole(fields, f"{architecture}.block_count"),
        "heads": heads,
        "kv_heads": _whole(fields, f"{architecture}.attention.head_count_kv", heads),
        "head_width": head_width,
        "mlp_width": _whole(fields, f"{architecture}.feed_forward_length"),
        "positions": _whole(fields, f"{architecture}.context_length"),
        "activation": activation,
        "norm_eps": _short(fields.get(eps, 1e-5)),
        "tied_head": "output.weight" not in names,
        "qkv_bias": "blk.0.attn_q.bias" in names or "blk.0.attn_qkv.bias" in names,
        "output_bias": "blk.0.attn_output.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }
    found |= entry.fixed
    if clip := fields.get(f"{architecture}.attention.clamp_kqv"):
        found["clip_qkv"] = _short(clip)
    if family == "gpt_neox":
        found["parallel"] = bool(fields.get(f"{architecture}.use_parallel_residual", True))
    if entry.rotary:
        found["rotary_base"] = _short(fields.get(f"{architecture}.rope.freq_base", 10000.0))
        found["rotary_share"] = _share(turning if turning is not None else head_width, head_width)
        if layout == "pairs" and found["rotary_share"] != 1.0:
            raise InputError(
                f"{architecture}.rope.dimension_count={turning} of {head_width} is not supported;"
                " only all of them"
            )
        found["rotary_scaling"] = _scaling(header, architecture, found)
    return ModelConfig(**found)


def _refuse(fields: dict, architecture: str):
    for key, neutral in _NEUTRAL.items():
        value = fields.get(f"{architecture}.{key}", neutral)
        if value not in (neutral, 0, None):
            raise InputError(f"{architecture}.{key}={value} is not supported; only {neutral}")


def _whole(fields: dict, key: str, default: int | None = None) -> int:
    value = fields.get(key, default)
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise InputError(f"{key} differs between layers; one value for all layers is read")
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{key}={value!r} in the GGUF metadata must be a whole number")
    return value


def _short(value: float) -> float:
    """The shortest decimal of a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _share(turning: int, head_width: int) -> float:
    share = turning / head_width
    while int(head_width * share) < turning:  # 0.58 * 50 is 28.999...
        share = float(np.nextafter(share, 2.0))
    return share


def _scaling(header: Header, architecture: str, found: dict) -> RotaryScaling | None:
    prefix = f"{architecture}.rope.scaling."
    given = {k.removeprefix(prefix): v for k, v in header.fields.items() if k.startswith(prefix)}
    if "rope_freqs.weight" in header.tensors:
        return _llama3(decode(header, "rope_freqs.weight"), found)
    kind = choose(
        "rope scaling",
        given.pop("type", "linear" if "factor" in given else "none"),
        ("none", "linear", "yarn"),
    )
    factor = _short(
        given.pop("factor", header.fields.get(f"{architecture}.rope.scale_linear", 1.0))
    )
    given.pop("finetuned", None)
    original = given.pop("original_context_length", 0)
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return None
    if kind == "linear":
        return RotaryScaling("linear", factor)
    fast, slow = _short(given.pop("yarn_beta_fast", 32.0)), _short(given.pop("yarn_beta_slow", 1.0))
    if odd := {k: v for k, v in given.items() if v != 1.0}:
        key, value = next(iter(odd.items()))
        raise InputError(f"{prefix}{key}={value} is not supported with yarn; only 1.0")
    return RotaryScaling(
        "yarn", factor, original or found["positions"], beta_fast=fast, beta_slow=slow
    )


def _llama3(divisors: np.ndarray, found: dict) -> RotaryScaling | None:
    """Llama 3's scaling, whose frequencies are the plain ones over `divisors` `[K / 2]`, if any."""
    divisors = divisors.reshape(-1).astype(np.float64)
    if np.allclose(divisors, 1.0):
        return None
    factor, original, low, high = _short(divisors.max()), 8192, 1.0, 4.0
    exponents = np.arange(divisors.size) / divisors.size
    turns = original * found["rotary_base"] ** -exponents / (2 * np.pi)
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    if not np.allclose(1 / divisors, blend + (1 - blend) / factor, rtol=1e-3):
        raise InputError(
            "rope_freqs.weight is not Llama 3's scaling (8192 positions, factors 1 and 4); no other"
            " is supported"
        )
    return RotaryScaling("llama3", factor, original, low_frequency=low, high_frequency=high)
