"""Any model of ours on public benchmarks, through EleutherAI's lm-evaluation-harness (`eval`).

They show what an update or an adaptation forgot beyond the texts at hand.

    import lm_eval, lmdyn.harness
    lm = lmdyn.harness.Harness("gguf:SmolLM2-135M-Instruct.Q4_1.gguf")
    lm_eval.simple_evaluate(model=lm, tasks=["lambada_openai"], limit=100)["results"]

Adapted parameters, such as `lmdyn.online.evaluate(...).params`, are passed as `params`. Shape
letters: P requests, T tokens.
"""

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from lmdyn import checkpoints, metrics
from lmdyn.data import ProbeBatch
from lmdyn.data.tokenizers.tokenizer import put_first
from lmdyn.errors import InputError
from lmdyn.models import forward, new_cache
from lmdyn.models.config import Compute, ModelConfig
from lmdyn.models.heads import head_of
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
TOKENS = 2048
"""Longer requests go through the model in smaller batches: no more than `rows` times this."""
PREFILL = 64
"""Tokens of a prompt that go through the model at once when text is generated."""


class Harness(TemplateLM):
    """A model as the harness sees it, by the rules of the harness's own `HFLM`.

    It gives log-likelihoods of continuations and of whole texts, and generates greedily. A text
    begins with the special tokens that the model's tokenizer adds, unless it starts with the prefix
    token literally. The prefix token stands for an empty context and before whole texts.

    Args:
      model: a model reference, or what `lmdyn.load` returned.
      params: other parameters for that model, such as adapted ones; None takes its own.
      length: T at most, context included; default: the model's positions. Longer contexts lose
        their beginning.
      rows: P at once.
      compute: see `lmdyn.load`.
      add_bos_token: whether texts begin with the beginning-of-text token; default: as the model's
        tokenizer does.
      prefix_token_id: default: the beginning-of-text token or, if there is none, the one that ends
        a text.

    Raises:
      InputError: length beyond learned positions, rows below 1, or no such token.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> from lmdyn.models import LanguageModel, ModelConfig, init
    >>> config = ModelConfig(
    ...     vocab=257, width=6, depth=2, heads=3, head_width=2, mlp_width=10, positions=16
    ... )
    >>> model = LanguageModel(config)
    >>> harness = Harness(
    ...     checkpoints.Loaded(model, init(model), byte_tokenizer(), "tiny", None), length=8
    ... )
    >>> harness.max_length, harness.tok_encode("hi")
    (8, [104, 105])
    """

    def __init__(
        self,
        model: str | checkpoints.Loaded,
        params: Params | None = None,
        length: int | None = None,
        rows: int = 16,
        compute: Compute | None = None,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
    ) -> None:
        super().__init__()
        loaded = checkpoints.load(model, compute) if isinstance(model, str) else model
        self.model, self.tokens = loaded.model, loaded.tokenizer
        self.params = loaded.params if params is None else params
        self.length = _window(self.model.config, length)
        if rows < 1:
            raise InputError(f"rows={rows}; it must be at least 1")
        vocab = self.tokens.vocab
        if prefix_token_id is not None and not 0 <= prefix_token_id < vocab:
            raise InputError(
                f"prefix_token_id={prefix_token_id} is outside the vocabulary; use 0 to {vocab - 1}"
            )
        self.rows, self.add_bos_token, self._prefix = rows, add_bos_token, prefix_token_id
        if add_bos_token and self.tokens.bos is not None:
            backend = copy.deepcopy(self.tokens.backend)
            put_first(backend, self.tokens.bos)
            self.tokens = dataclasses.replace(self.tokens, backend=backend)
        self._advance = jax.jit(self._next, donate_argnums=1)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokens.end_of_text if self.tokens.eos is None else self.tokens.eos

    @property
    def prefix_token_id(self) -> int:
        """The token before whole texts, and in place of an empty context."""
        if self._prefix is not None:
            return self._prefix
        return self.eot_token_id if self.tokens.bos is None else self.tokens.bos

    @property
    def max_length(self) -> int:
        """T at most."""
        return self.length

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text.

        Args:
          string: the text.
          add_special_tokens: those of the model's tokenizer; None: as `add_bos_token` says, and not
            if the text starts with the prefix token.
          **kwargs: other things that the harness says.
        """
        if add_special_tokens is None:
            return self._encode(string, self.prefix_token_id)
        return self.tokens.backend.encode(string, add_special_tokens=add_special_tokens).ids

    def _encode(self, text: str, first: int | None) -> list[int]:
        """The ids of a text, without special tokens if it starts with `first` literally."""
        special = self.add_bos_token is not False
        if first is not None and text.startswith(self.tokens.decode([first])):
            special = False
        return self.tokens.backend.encode(text, add_special_tokens=special).ids

    def tok_decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        return self.tokens.backend.decode(list(tokens), skip_special_tokens=skip_special_tokens)

    def _loglikelihood_tokens(
        self, requests, disable_tqdm: bool = False, **kwargs
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation in nats, and whether greedy decoding would write it.

        Args:
          requests: `(texts, context ids, continuation ids)`.
          disable_tqdm: no bar.
          **kwargs: other things that the harness says.
        """
        cut = [self._cut(context, continuation) for _, context, continuation in requests]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(cut)
        with tqdm(
            total=len(cut), desc="log-likelihood", unit="request", disable=disable_tqdm
        ) as bar:
            for chosen, size, span in self._batches(cut):
                whole = min(self._rows(size), 1 << (len(chosen) - 1).bit_length())
                asked = (chosen + chosen[:1] * whole)[:whole]  # few numbers of rows, too
                batch = _batch([cut[i] for i in asked], size)
                scores = metrics.score_probes(self.model, self.params, batch, rows=whole, span=span)
                for row, i in enumerate(chosen):
                    mean, exact = scores.log_probability[row], scores.exact[row]
                    found[i] = (float(mean) * cut[i][1], bool(exact))
                bar.update(len(chosen))
        return found

    def _batches(self, cut) -> Iterator[tuple[list[int], int, int]]:
        """Requests of one shape, as many as go through the model at once.

        Yields their places, and what they and their continuations are padded to.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (ids, scored) in enumerate(cut):
            size = self._padded(len(ids) - 1)
            groups.setdefault(
                (size, min(size, SHORTEST) if scored <= SHORTEST else size), []
            ).append(i)
        for (size, span), members in sorted(groups.items(), reverse=True):
            rows = self._rows(size)
            for start in range(0, len(members), rows):
                yield members[start : start + rows], size, span

    def _rows(self, size: int) -> int:
        return max(1, self.rows * TOKENS // max(TOKENS, size))

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[np.ndarray, int]:
        """The ids of a request that fit into a window, and how many of them are scored."""
        if not context or not continuation:
            raise InputError(
                "a request has an empty context or an empty continuation after tokenising; the"
                " harness must give at least one token"
            )
        if len(continuation) > self.length:
            raise InputError(
                f"a continuation has {len(continuation)} tokens, and a window holds"
                f" {self.length}; use a larger length"
            )
        ids = [*context, *continuation][-(self.length + 1) :]
        return np.asarray(ids, np.int32), len(continuation)

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
            most = int(options.get("max_gen_toks", 256 if self.length > 256 else self.length // 2))
            if options.get("do_sample") and options.get("temperature", 1.0) > 0:
                raise InputError(
                    f"temperature={options.get('temperature', 1.0)}: only greedy decoding is there;"
                    " use do_sample=false"
                )
            if not 0 < most < self.length:
                raise InputError(
                    f"max_gen_toks={most}; it must be at least 1 and below length={self.length}"
                )
            prompt = self._encode(text, self.tokens.bos) or [self.prefix_token_id]
            prompt = prompt[-(self.length - most) :]
            found.append(self._generate(prompt, until, most))
        return found

    def _generate(self, prompt: list[int], until: list[str], most: int) -> str:
        cache = new_cache(self.model, 1, self._padded(len(prompt) + most))
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
            said = self.tok_decode(made, skip_special_tokens=False)
            if any(stop in said for stop in until if stop):
                break
            token, cache = self._advance(self.params, cache, jnp.asarray([[token]], jnp.int32))
        said = self.tok_decode(made)
        return said[
            : min([said.index(stop) for stop in until if stop and stop in said], default=None)
        ]

    def _next(self, params, cache, tokens):
        """The likeliest token after `tokens [1, n]`, and the cache with them."""
        out = forward(self.model, params, tokens, cache=cache)
        head = head_of(self.model.config)
        logits = head.logits(head.matrices(params), out.states[:, -1])
        return jnp.argmax(logits[0]), out.cache


def _window(config: ModelConfig, length: int | None) -> int:
    """T at most of a model."""
    most = config.positions
    window = most if length is None else length
    if window < 2 or (window > most and config.position == "learned"):
        raise InputError(
            f"length={window}; it must be at least 2 and at most the model's {most} positions"
        )
    if window > most:
        warnings.warn(
            f"length={window} goes beyond the {most} positions that the model was trained with",
            stacklevel=3,
        )
    return window


def _batch(cut, size: int) -> ProbeBatch:
    """Requests `(ids, tokens of the continuation)` as probes whose span is the continuation."""
    inputs, targets = np.zeros((2, len(cut), size), np.int32)
    mask, span = np.zeros((2, len(cut), size), bool)
    for row, (ids, scored) in enumerate(cut):
        n = len(ids) - 1
        inputs[row, :n], targets[row, :n] = ids[:-1], ids[1:]
        mask[row, :n], span[row, n - scored : n] = True, True
    return ProbeBatch(inputs, targets, span, mask)
