"""Chat templates: a conversation as the text that a model was tuned on.

Templates are Jinja, and lie in a model's folder as `chat_template.jinja`, as
`additional_chat_templates/NAME.jinja`, or in `tokenizer_config.json`. They are rendered in a
sandbox, with the functions and settings that templates of published models expect.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import ext, nodes, sandbox

from lmdyn.data.tokenizers import Tokenizer
from lmdyn.errors import InputError

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_END = "CONTINUE-HERE "
"""Marks where a message that is to be continued ends; no template writes it."""


def chat_templates(tokenizer: Tokenizer) -> dict[str, str]:
    """The chat templates that came with a model, by name; the usual one is `default`.

    Args:
      tokenizer: of the model.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> chat_templates(byte_tokenizer())
    {}
    """
    files, more = tokenizer.files, "additional_chat_templates/"
    found = {
        name.removeprefix(more).removesuffix(".jinja"): text.decode()
        for name, text in files.items()
        if name.startswith(more)
    }
    if "chat_template.jinja" in files:
        found["default"] = files["chat_template.jinja"].decode()
    elif "chat_template.json" in files:
        found["default"] = json.loads(files["chat_template.json"])["chat_template"]
    if found:
        return found
    said = _config(tokenizer, "tokenizer_config.json").get("chat_template") or []
    if isinstance(said, str):
        return {"default": said}
    return {one["name"]: one["template"] for one in said}


def role_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The tokens that a template may name, such as `bos_token`.

    Args:
      tokenizer: of the model.

    >>> from lmdyn.data.tokenizers import byte_tokenizer
    >>> role_tokens(byte_tokenizer())
    {'eos_token': '<|endoftext|>'}
    """
    end = tokenizer.end_of_text if tokenizer.eos is None else tokenizer.eos
    ids = {"bos_token": tokenizer.bos, "eos_token": end}
    found: dict[str, Any] = {
        role: tokenizer.backend.id_to_token(i) for role, i in ids.items() if i is not None
    }
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values = _config(tokenizer, file)
        found |= {key: values[key] for role in _ROLES if values.get(key := f"{role}_token")}
    return {
        role: token["content"] if isinstance(token, dict) else token
        for role, token in found.items()
    }


def _config(tokenizer: Tokenizer, file: str) -> dict[str, Any]:
    return json.loads(tokenizer.files.get(file, b"{}"))


class _Generation(ext.Extension):
    """`{% generation %}` marks what the model writes; the text inside is written as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(
            parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
        )


def _environment() -> sandbox.ImmutableSandboxedEnvironment:
    def fail(message):
        raise jinja2.TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    made = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = fail
    made.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return made


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    r"""A conversation as text.

    Args:
      template: Jinja.
      messages: such as `{"role": "user", "content": "Hello"}`.
      add_generation_prompt: ends with what begins an answer; otherwise the last message is left
        open, so that the model continues it.
      **variables: what else the template may read, such as `bos_token`.

    Raises:
      InputError: a template that cannot be read, that refuses the conversation (`TemplateError` of
        Jinja is its cause), or that leaves the last message out.

    >>> template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    >>> render_chat(template, [{"role": "user", "content": "Hello"}])
    '[user] Hello\n'
    >>> render_chat(
    ...     template, [{"role": "user", "content": "Hello"}], add_generation_prompt=False
    ... )
    '[user] Hello'
    """
    chat = [{key: value for key, value in one.items() if value is not None} for one in messages]
    if not add_generation_prompt:
        chat[-1]["content"] += _END
    try:
        text = (
            _environment()
            .from_string(template)
            .render(messages=chat, add_generation_prompt=add_generation_prompt, **variables)
        )
    except jinja2.TemplateError as err:
        raise InputError(f"the chat template: {' '.join(str(err).split())}") from err
    if add_generation_prompt:
        return text
    where = text.rfind(_END.strip())
    if where < 0:
        raise InputError("the chat template leaves the last message out; it cannot be continued")
    # A template that strips messages has taken the mark's space, and the message's before it.
    return text[:where] if text[where:].startswith(_END) else text[:where].rstrip()
