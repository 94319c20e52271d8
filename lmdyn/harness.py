"""Any model of ours on public benchmarks, through EleutherAI's lm-evaluation-harness (`eval`).

They show what an update or an adaptation forgot beyond the texts at hand.

    import lm_eval, lmdyn.harness
    lm = lmdyn.harness.Harness("gguf:SmolLM2-135M-Instruct.Q4_1.gguf")
    lm_eval.simple_evaluate(model=lm, tasks=["lambada_openai"], limit=100)["results"]

Adapted parameters, such as `lmdyn.online.evaluate(...).params`, are passed as `params`. Shape
letters: P requests, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from lmdyn import checkpoints, metrics
from lmdyn.data import ProbeBatch
from lmdyn.errors import InputError
from lmdyn.models import forward, new_cache
from lmdyn.models.config import Compute
from lmdyn.models.heads import head_of
from lmdyn.models.modules import LanguageModel
from lmdyn.types import Params

try:
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
except ImportError:
    raise ImportError(
        "lmdyn.harness needs lm-evaluation-harness; install it with: pip install 'lmdyn[eval]'"
    ) from None

SHORTEST = 32
"""Requests are padded to the next power of two from here on, so that few shapes are compiled."""
PREFILL = 64
"""Tokens of a prompt that go through the model at once when text is generated."""


class Harness(TemplateLM):
    """A model as the harness sees it.

    It gives log-likelihoods of continuations and of whole texts, and generates greedily.

    Args:
      model: a model reference, or what `lmdyn.load` returned.
      params: other parameters for that model, such as adapted ones; None takes its own.
      length: T at most, context included; default: the model's positions, 2,048 at most. Longer
        contexts lose their beginning.
      rows: P at once.
      compute: see `lmdyn.load`.

    Raises:
      InputError: length beyond the model's positions, or rows below 1.
    """

    def __init__(
        self,
        model: str | LanguageModel,
        params: Params | None = None,
        length: int | None = None,
        rows: int = 16,
        compute: Compute | None = None,
    ) -> None:
        super().__init__()
        loaded = checkpoints.load(model, compute) if isinstance(model, str) else model
        self.model, self.tokens = loaded.model, loaded.tokenizer
        self.params = loaded.params if params is None else params
        positions = self.model.config.positions
        window = min(positions, 2048) if length is None else length
        if not 2 <= window <= positions:
            raise InputError(
                f"length={window}; it must be at least 2 and at most the model's {positions}"
                " positions"
            )
        if rows < 1:
            raise InputError(f"rows={rows}; it must be at least 1")
        self.length, self.rows = window, rows
        self._advance = jax.jit(self._next, donate_argnums=1)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokens.end_of_text

    @property
    def max_length(self) -> int:
        """T at most."""
        return self.length

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text, without special tokens."""
        return [int(i) for i in self.tokens.encode(string)]

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """The text of ids."""
        return self.tokens.decode(tokens)

    def _loglikelihood_tokens(
        self, requests, disable_tqdm: bool = False, **kwargs
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation in nats, and whether greedy decoding would write it.

        Args:
          requests: `(texts, context ids, continuation ids)`.
          disable_tqdm: no bar.
          **kwargs: other things that the harness says.
        """
        cut = []
        for _, context, continuation in requests:
            if not context or not continuation:
                raise InputError(
                    "a request has an empty context or an empty continuation after tokenising; the"
                    " harness must give at least one token"
                )
            if len(continuation) >= self.length + 1:
                raise InputError(
                    f"a continuation has {len(continuation)} tokens, and a window holds"
                    f" {self.length}; use a larger length"
                )
            ids = [*context, *continuation][-(self.length + 1) :]
            cut.append((np.asarray(ids, np.int32), len(continuation)))
        sizes = [self._padded(len(ids) - 1) for ids, _ in cut]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(cut)
        for size in tqdm(
            sorted(set(sizes), reverse=True),
            desc="log-likelihood",
            unit="size",
            disable=disable_tqdm,
        ):
            chosen = [i for i, own in enumerate(sizes) if own == size]
            scores = metrics.score_probes(
                self.model, self.params, _batch([cut[i] for i in chosen], size), rows=self.rows
            )
            for i, mean, exact in zip(chosen, scores.log_probability, scores.exact, strict=True):
                found[i] = (float(mean) * cut[i][1], bool(exact))
        return found

    def _padded(self, n: int) -> int:
        return min(self.length, max(SHORTEST, 1 << (n - 1).bit_length()))

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-probability of whole texts, in nats."""
        windows, owner = [], []
        for number, request in enumerate(requests):
            rolled = utils.get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.length,
                context_len=1,
            )
            for context, continuation in map(utils.make_disjoint_window, rolled):
                windows.append((None, context, continuation))
                owner.append(number)
        found = np.zeros(len(requests))
        np.add.at(
            found, owner, [value for value, _ in self._loglikelihood_tokens(windows, disable_tqdm)]
        )
        return found.tolist()

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy decoding, one request at a time, with a cache of keys and values.

        Sampling is refused, not ignored.
        """
        found = []
        for request in tqdm(requests, desc="generating", unit="text", disable=disable_tqdm):
            text, options = request.args
            until = options.get("until") or []
            until = [until] if isinstance(until, str) else list(until)
            most = int(options.get("max_gen_toks", min(256, self.length // 2)))
            if options.get("do_sample") and options.get("temperature", 1.0) > 0:
                raise InputError(
                    f"temperature={options.get('temperature', 1.0)}: only greedy decoding is there;"
                    " use do_sample=false"
                )
            if not 0 < most < self.length:
                raise InputError(
                    f"max_gen_toks={most}; it must be at least 1 and below length={self.length}"
                )
            prompt = (self.tok_encode(text) or [self.prefix_token_id])[-(self.length - most) :]
            found.append(self._generate(prompt, until, most))
        return found

    def _generate(self, prompt: list[int], until: list[str], most: int) -> str:
        cache = new_cache(self.model, 1, self.length)
        whole = len(prompt) // PREFILL * PREFILL
        pieces = [prompt[i : i + PREFILL] for i in range(0, whole, PREFILL)] + [
            [token] for token in prompt[whole:]
        ]
        token = self.eot_token_id
        for piece in pieces:
            token, cache = self._advance(self.params, cache, jnp.asarray([piece], jnp.int32))
        made: list[int] = []
        while len(made) < most:
            token = int(token)
            if token == self.eot_token_id:
                break
            made.append(token)
            said = self.tok_decode(made)
            ends = [said.index(stop) for stop in until if stop and stop in said]
            if ends:
                return said[: min(ends)]
            token, cache = self._advance(self.params, cache, jnp.asarray([[token]], jnp.int32))
        return self.tok_decode(made)

    def _next(self, params, cache, tokens):
        """The likeliest token after `tokens [1, n]`, and the cache with them."""
        out = forward(self.model, params, tokens, cache=cache)
        head = head_of(self.model.config)
        logits = head.logits(head.matrices(params), out.states[:, -1])
        return jnp.argmax(logits[0]), out.cache


def _batch(cut, size: int) -> ProbeBatch:
    """Requests `(ids, tokens of the continuation)` as probes whose span is the continuation."""
    inputs, targets = np.zeros((2, len(cut), size), np.int32)
    mask, span = np.zeros((2, len(cut), size), bool)
    for row, (ids, scored) in enumerate(cut):
        n = len(ids) - 1
        inputs[row, :n], targets[row, :n] = ids[:-1], ids[1:]
        mask[row, :n], span[row, n - scored : n] = True, True
    return ProbeBatch(inputs, targets, span, mask)
