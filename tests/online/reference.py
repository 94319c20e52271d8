"""Dynamic evaluation a second time, in PyTorch and float64, with the decoder of `transformers`:
nothing of lmdyn runs here.
"""

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from tests.helpers import small

NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def llama():
    """`small()` as a `LlamaForCausalLM` in float64."""
    model, params = small()
    config = model.config
    ours = transformers.LlamaConfig(
        vocab_size=config.vocab,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_width,
        intermediate_size=config.mlp_width,
        max_position_embeddings=config.positions,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    ours.rope_theta = config.rotary_base
    found = transformers.LlamaForCausalLM(ours).double().eval()
    tensor = lambda array: torch.tensor(np.asarray(array, np.float64))
    with torch.no_grad():
        found.model.embed_tokens.weight.copy_(tensor(params["embed"]["embedding"]))
        found.lm_head.weight.copy_(tensor(params["head"]["kernel"]).T)
        found.model.norm.weight.copy_(tensor(params["final_norm"]["scale"]))
        for layer, block in enumerate(found.model.layers):
            for group in ("attention", "mlp"):
                for name, leaf in params["blocks"][group].items():
                    block.get_submodule(NAMES[name]).weight.copy_(tensor(leaf["kernel"][layer]).T)
            block.input_layernorm.weight.copy_(
                tensor(params["blocks"]["attention_norm"]["scale"][layer])
            )
            block.post_attention_layernorm.weight.copy_(
                tensor(params["blocks"]["mlp_norm"]["scale"][layer])
            )
    return found


class LowRank(torch.nn.Module):
    """A linear layer that is frozen, and an adapter beside it."""

    def __init__(self, linear, a, b, scale):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), scale
        self.a, self.b = (
            torch.nn.Parameter(torch.tensor(np.asarray(m, np.float64))) for m in (a, b)
        )

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.a @ self.b)


def online(model, text, chunk, learn):
    """The nll of every prediction of `text`, each chunk seeing itself only, and `learn()` called
    after each backward pass.
    """
    text, found = torch.tensor(np.asarray(text, np.int64)), []
    for start in range(0, len(text) - 1, chunk):
        piece = text[start : start + chunk + 1]
        nll = F.cross_entropy(model(piece[None, :-1]).logits[0], piece[1:], reduction="none")
        model.zero_grad(set_to_none=True)
        nll.mean().backward()
        learn()
        found.append(nll.detach().numpy())
    return np.concatenate(found)
