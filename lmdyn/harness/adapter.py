"""A model as lm-evaluation-harness sees it.

Shape letters: P requests, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from tqdm.auto import tqdm

from lmdyn import checkpoints, metrics
from lmdyn.data import ProbeBatch
from lmdyn.errors import InputError
from lmdyn.harness.chat import chat_templates, render_chat, role_tokens
from lmdyn.harness.generation import Continuation, cut_at, read_options
from lmdyn.models import check_positions, forward, new_cache
from lmdyn.models.config import Compute
from lmdyn.models.heads import head_of
from lmdyn.types import Params

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
    token literally. The prefix token stands for an empty context and before whole texts. Chats are
    written by the template that came with the model (`apply_chat_template=True`).

    Args:
      model: a model reference, or what `lmdyn.load` returned.
      params: other parameters for that model, such as adapted ones; None takes its own.
      length: T at most, context included; default: the model's positions. Longer contexts lose
        their beginning.
      rows: P at once.
      compute: see `lmdyn.load`.
      add_bos_token: whether texts begin with the beginning-of-text token; default: as the model's
        tokenizer does (`Tokenizer.with_bos`).
      prefix_token_id: default: the beginning-of-text token or, if there is none, the one that ends
        a text.
      chat_template_args: what else the chat template may read, such as
        `{"enable_thinking": False}`.

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
        chat_template_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        loaded = checkpoints.load(model, compute) if isinstance(model, str) else model
        self.model, self.tokens = loaded.model, loaded.tokenizer
        self.params = loaded.params if params is None else params
        self.length = self.model.config.positions if length is None else length
        if self.length < 2:
            raise InputError(f"length={self.length}; it must be at least 2")
        check_positions(self.model.config, self.length)
        if rows < 1:
            raise InputError(f"rows={rows}; it must be at least 1")
        vocab = self.tokens.vocab
        if prefix_token_id is not None and not 0 <= prefix_token_id < vocab:
            raise InputError(
                f"prefix_token_id={prefix_token_id} is outside the vocabulary; use 0 to {vocab - 1}"
            )
        self.rows, self._prefix = rows, prefix_token_id
        self.chat_template_args = dict(chat_template_args or {})
        if add_bos_token is not None:
            bos = "document" if add_bos_token and self.tokens.bos is not None else "none"
            self.tokens = self.tokens.with_bos(bos)
        self.backend_with_first = self.tokens.backend_with_first()
        self._advance = jax.jit(self._next, donate_argnums=(1, 2))

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
        return self.backend_with_first.encode(string, add_special_tokens=add_special_tokens).ids

    def _encode(self, text: str, first: int | None) -> list[int]:
        """The ids of a text, without special tokens if it starts with `first` literally."""
        special = self.tokens.bos_rule != "none"
        if first is not None and text.startswith(self.tokens.decode([first])):
            special = False
        return self.backend_with_first.encode(text, add_special_tokens=special).ids

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
                    if (texts := requests[i][0]) is not None:  # for lm_eval's own cache of answers
                        self.cache_hook.add_partial("loglikelihood", texts, found[i])
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

        It ends as `HFLM`'s does: at a text of `until`, at the token that ends a text, and at those
        of `generation_config.json`, whose `repetition_penalty` counts. Sampling is refused, not
        ignored.
        """
        found = []
        for request in tqdm(requests, desc="generating", unit="text", disable=disable_tqdm):
            text, options = request.args
            how = read_options(options, self.tokens, self.eot_token_id, self.length)
            prompt = self._encode(text, self.tokens.bos) or [self.prefix_token_id]
            found.append(self._generate(prompt[-(self.length - how.tokens) :], how))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
        return found

    def _generate(self, prompt: list[int], how: Continuation) -> str:
        cache = new_cache(self.model, 1, self._padded(len(prompt) + how.tokens))
        seen = jnp.zeros(self.model.config.vocab, bool).at[jnp.asarray(prompt)].set(True)
        penalty = jnp.float32(how.penalty)
        # The prompt goes in pieces of one length, so that all prompts share two programs.
        whole = len(prompt) // PREFILL * PREFILL
        pieces = [prompt[i : i + PREFILL] for i in range(0, whole, PREFILL)] + [
            [token] for token in prompt[whole:]
        ]
        made, token = [], self.eot_token_id
        while True:
            for piece in pieces:
                tokens = jnp.asarray([piece], jnp.int32)
                token, cache, seen = self._advance(self.params, cache, seen, tokens, penalty)
            made.append(int(token))
            said = self.tok_decode(made, skip_special_tokens=False)
            ended = made[-1] in how.eos or any(stop in said for stop in how.until)
            if ended or len(made) == how.tokens:
                return cut_at(self.tok_decode(made), how.until)
            pieces = [made[-1:]]

    def _next(self, params, cache, seen, tokens, penalty):
        """The likeliest token after `tokens [1, n]`, and the cache and `seen [V]` with them."""
        out = forward(self.model, params, tokens, cache=cache)
        head, seen_V = head_of(self.model.config), seen.at[tokens[0]].set(True)
        logits_V = head.logits(head.matrices(params), out.states[:, -1])[0]
        lower_V = jnp.where(logits_V < 0, logits_V * penalty, logits_V / penalty)
        return jnp.argmax(jnp.where(seen_V, lower_V, logits_V)), out.cache, seen_V

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer in names of lm_eval's caches of requests."""
        return self.tokens.name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The chat template that lm_eval reports.

        Args:
          chat_template: its name; True: the usual one; False: none.

        Raises:
          InputError: no such template.
        """
        if not chat_template:
            return None
        found = chat_templates(self.tokens)
        name = "default" if chat_template is True or len(found) == 1 else chat_template
        if name not in found:
            raise InputError(
                f"the model {self.tokens.name} has no chat template '{name}'; it has:"
                f" {', '.join(found) or 'none'}"
            )
        return found[name]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, by the model's template.

        A template that refuses messages of the system gets the conversation without them.

        Args:
          chat_history: messages, such as `{"role": "user", "content": "Hello"}`.
          add_generation_prompt: ends with what begins an answer; otherwise the last message is left
            open.

        Raises:
          InputError: the model has no template, or it refuses the conversation.
        """
        template = str(self.chat_template(True))
        given = {**role_tokens(self.tokens), **self.chat_template_args}
        try:
            return render_chat(template, chat_history, add_generation_prompt, **given)
        except InputError as err:
            kept = [message for message in chat_history if message["role"] != "system"]
            if len(kept) == len(chat_history) or err.__cause__ is None:
                raise
            return render_chat(template, kept, add_generation_prompt, **given)


def _batch(cut, size: int) -> ProbeBatch:
    """Requests `(ids, tokens of the continuation)` as probes whose span is the continuation."""
    inputs, targets = np.zeros((2, len(cut), size), np.int32)
    mask, span = np.zeros((2, len(cut), size), bool)
    for row, (ids, scored) in enumerate(cut):
        n = len(ids) - 1
        inputs[row, :n], targets[row, :n] = ids[:-1], ids[1:]
        mask[row, :n], span[row, n - scored : n] = True, True
    return ProbeBatch(inputs, targets, span, mask)
