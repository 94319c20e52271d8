"""`config.json` of Hugging Face to `ModelConfig`, and back.

Both layouts are read and written: `rope_theta`, `rope_scaling`, `rotary_pct` (transformers 4) and
`rope_parameters` (transformers 5). What `ModelConfig` cannot say is refused, never dropped.
"""

import dataclasses
import math
import re
import types
from typing import Any

from lmdyn.checkpoints.families import FAMILIES, Family, family, unsupported
from lmdyn.errors import InputError
from lmdyn.models.config import ModelConfig, RotaryScaling

HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_WRITTEN_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu", "relu": "relu"}
_FIELD_TYPES = {f.name: f.type for f in dataclasses.fields(ModelConfig)}


def read_config(values: dict) -> ModelConfig:
    """The architecture that the contents of a `config.json` describe.

    Args:
      values: the parsed file; either layout of rotary settings.

    Raises:
      InputError: the family is unknown, or a setting has a value that `ModelConfig` cannot express.

    >>> read_config({"model_type": "gpt2", "n_embd": 6, "n_head": 3, "n_layer": 2}).mlp_width
    24
    """
    if not isinstance(values.get("model_type"), str):
        raise InputError(
            f"config.json has no model_type (it is {values.get('model_type')!r}); supported:"
            f" {', '.join(sorted(FAMILIES))}"
        )
    name = values["model_type"]
    entry = family(name)
    try:
        return _read(name, entry, values)
    except InputError:
        raise
    except (
        TypeError,
        ValueError,
        ZeroDivisionError,
        OverflowError,
    ) as err:  # a value of an unforeseen type
        raise InputError(
            f"config.json of {name} is malformed: {' '.join(str(err).split())}"
        ) from err


def _read(name: str, entry: Family, values: dict) -> ModelConfig:
    _refuse(name, entry, values)
    if entry.translate:
        values = entry.translate(values)
    read = {ours: _lookup(entry, keys, values) for ours, keys in entry.keys.items()}
    fields = {k: v for k, v in read.items() if v is not None} | entry.fixed
    for field, value in fields.items():
        fields[field] = _checked(field, value, entry.keys.get(field, (field,))[0])
    activation = str(fields["activation"])
    if activation not in HF_ACTIVATIONS:
        raise InputError(f"config.json: {unsupported('activation', activation, HF_ACTIVATIONS)}")
    fields["activation"] = HF_ACTIVATIONS[activation]
    fields.setdefault("kv_heads", fields["heads"])
    if min(fields["heads"], fields["width"]) < 1:
        raise InputError(
            f"config.json has width {fields['width']} and {fields['heads']} heads; both must be"
            " >= 1"
        )
    if "head_width" not in fields:
        if fields["width"] % fields["heads"]:
            raise InputError(
                f"width {fields['width']} is not a multiple of {fields['heads']} heads; set"
                " head_dim in config.json"
            )
        fields["head_width"] = fields["width"] // fields["heads"]
    fields.setdefault("mlp_width", 4 * fields["width"])
    if entry.rotary:
        fields |= _read_rotary(name, entry, values, fields["positions"])
    try:
        return ModelConfig(**fields)
    except InputError as err:  # which names our fields; the file has their keys
        keys = {ours: keys[0] for ours, keys in entry.keys.items()}
        named = re.sub(r"\b\w+(?=[=>])", lambda word: keys.get(word[0], word[0]), str(err))
        raise InputError(f"config.json: {named}") from err


def _lookup(entry: Family, keys: tuple[str, ...], values: dict):
    for key in keys:
        if key in values:
            return values[key]
    return entry.defaults.get(keys[0])


def _checked(field: str, value, key: str):
    """`value` if it has the type of our `field`, else an error that names the config's `key`."""
    kind = _FIELD_TYPES[field]
    if kind in (int, bool) and type(value) is not kind:
        raise InputError(
            f"config.json: {key}={value!r} must be"
            f" {'a whole number' if kind is int else 'true or false'}"
        )
    if kind is float or isinstance(kind, types.UnionType):
        return _number(key, value)
    return value


def _number(key: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"config.json: {key}={value!r} must be a finite number")
    return float(value)


def _refuse(name: str, entry: Family, values: dict):
    """Settings with which the model would compute something that ours does not."""
    for key in ("quantization_config", "quantization"):  # the second is MLX's
        if not (about := values.get(key)):
            continue
        method = about.get("quant_method") if isinstance(about, dict) else None
        raise InputError(
            f"quantised checkpoints ({key}{f': {method}' if method else ''}) are not read; take the"
            " model's version in float32, float16 or bfloat16, or a GGUF file"
        )
    for key, allowed in entry.only.items():
        if values.get(key, allowed) != allowed:
            raise InputError(
                f"{key}={values[key]!r} is not supported for {name}; only {key}={allowed!r}"
            )
    layers = values.get("layer_types") or []
    if other := sorted({str(kind) for kind in layers if kind != "full_attention"}):
        raise InputError(f"layer_types={other[0]} is not supported for {name}; only full_attention")
    if name.startswith("qwen") and not layers and values.get("use_sliding_window"):
        window = values.get("sliding_window", 4096)
        if window is not None and values.get("num_hidden_layers", 32) > values.get(
            "max_window_layers", 28
        ):
            raise InputError(
                f"use_sliding_window=True with sliding_window={window} is not supported; only full"
                " attention"
            )
    if name == "gpt_neox" and "head_dim" in values:
        width, heads = values.get("hidden_size", 6144), values.get("num_attention_heads", 64)
        if values["head_dim"] not in (None, width // heads):
            raise InputError(
                f"head_dim={values['head_dim']} is not supported for gpt_neox; only hidden_size /"
                " heads"
            )


def _read_rotary(name: str, entry: Family, values: dict, positions: int) -> dict:
    """Base, share and scaling, from either layout.

    `rope_scaling` goes before `rope_parameters`, as in transformers.
    """
    assert entry.rotary is not None  # asked of families with rotary positions only
    base_key, share_key = entry.rotary
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(v, dict) for v in rope.values()):
        raise InputError(
            f"rope_parameters of {name} differ by layer or are malformed; one rotary setting for"
            " all layers is read"
        )
    base = _number(base_key, _first(rope.get("rope_theta"), values.get(base_key), 10000.0))
    keys = ("partial_rotary_factor",) + ((share_key,) if share_key else ())
    share = _first(
        rope.get("partial_rotary_factor"),
        *(values.get(k) for k in keys[::-1]),
        entry.defaults.get(share_key or ""),
        1.0,
    )
    share = _number(keys[-1], share)
    if share_key is None and share != 1.0:
        raise InputError(f"partial_rotary_factor={share} is not supported for {name}; only 1.0")
    original = values.get("original_max_position_embeddings")
    return {
        "position": "rotary",
        "rotary_base": base,
        "rotary_share": share,
        "rotary_scaling": _read_scaling(rope, positions, original),
    }


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def _read_scaling(rope: dict, positions: int, original) -> RotaryScaling | None:
    kind = _first(rope.get("rope_type"), rope.get("type"), "default")
    kinds = ("default", "linear", "llama3", "yarn")
    if kind not in kinds:
        raise InputError(f"config.json: {unsupported('rope_type', str(kind), kinds)}")
    if kind == "default":
        return None
    needed = {
        "linear": ("factor",),
        "yarn": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    }
    for key in needed[kind]:
        if rope.get(key) is None:
            raise InputError(f"rope_type={kind} needs {key}; config.json has none")
    factor = _number("factor", rope["factor"])
    if factor <= 0:
        raise InputError(f"config.json: factor={factor} of rope_type={kind} must be > 0")
    if kind == "linear":
        return RotaryScaling("linear", factor)
    original = int(
        _number(
            "original_max_position_embeddings",
            _first(original, rope.get("original_max_position_embeddings"), positions),
        )
    )
    if kind == "llama3":
        low, high = (
            _number("low_freq_factor", rope["low_freq_factor"]),
            _number("high_freq_factor", rope["high_freq_factor"]),
        )
        if low == high:
            raise InputError(
                f"config.json: low_freq_factor={low} equals high_freq_factor; llama3 needs low <"
                " high"
            )
        return RotaryScaling("llama3", factor, original, low_frequency=low, high_frequency=high)
    attention = rope.get("attention_factor")
    if attention is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        attention = _mscale(factor, rope["mscale"]) / _mscale(factor, rope["mscale_all_dim"])
    return RotaryScaling(
        "yarn",
        factor,
        original,
        beta_fast=_number("beta_fast", rope.get("beta_fast") or 32.0),
        beta_slow=_number("beta_slow", rope.get("beta_slow") or 1.0),
        attention_factor=None if attention is None else _number("attention_factor", attention),
        truncate=bool(rope.get("truncate", True)),
    )


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def write_config(config: ModelConfig) -> dict:
    """The contents of a `config.json` that `transformers` 4 and 5 read as this architecture.

    The family is the one whose file reads back as `config`.

    Raises:
      InputError: no known family combines these choices; the message names the nearest and what
        differs.

    >>> config = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> write_config(config)["model_type"]
    'llama'
    """
    differences = {}
    for name, entry in FAMILIES.items():
        if entry.translate:
            continue
        values = _write(name, entry, config)
        try:
            back = read_config(values)
        except InputError as err:
            differences[name] = [str(err)]
            continue
        pairs = (
            (f.name, getattr(config, f.name), getattr(back, f.name))
            for f in dataclasses.fields(config)
        )
        differences[name] = [
            f"{field}={ours!r} ({name} has {theirs!r})"
            for field, ours, theirs in pairs
            if ours != theirs
        ]
        if not differences[name]:
            return values
    nearest = min(differences, key=lambda name: len(differences[name]))
    raise InputError(
        f"no known family is this model; the nearest, {nearest}, differs in"
        f" {', '.join(differences[nearest])}"
    )


def _write(name: str, entry: Family, config: ModelConfig) -> dict:
    values = {
        "model_type": name,
        "architectures": [entry.architecture],
        "torch_dtype": "float32",
        **entry.written,
    }
    for ours, keys in entry.keys.items():
        values[keys[0]] = getattr(config, ours)
    activation_key = entry.keys["activation"][0]
    values[activation_key] = _WRITTEN_ACTIVATIONS[config.activation]
    values.update(entry.only)
    if entry.rotary:
        base_key, share_key = entry.rotary
        rope = _write_scaling(config.rotary_scaling)
        values[base_key] = config.rotary_base
        if share_key:
            values[share_key] = config.rotary_share
        elif config.rotary_share != 1.0:
            values["partial_rotary_factor"] = config.rotary_share
        values["rope_scaling"] = rope if config.rotary_scaling else None
        share = {"partial_rotary_factor": config.rotary_share} if share_key else {}
        values["rope_parameters"] = {"rope_theta": config.rotary_base, **share, **rope}
    return values


def _write_scaling(scaling: RotaryScaling | None) -> dict:
    if scaling is None:
        return {"rope_type": "default"}
    values = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        values["original_max_position_embeddings"] = scaling.original_positions
    if scaling.kind == "llama3":
        values |= {
            "low_freq_factor": scaling.low_frequency,
            "high_freq_factor": scaling.high_frequency,
        }
    if scaling.kind == "yarn":
        values |= {
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "truncate": scaling.truncate,
        }
        if scaling.attention_factor is not None:
            values["attention_factor"] = scaling.attention_factor
    return values
