"""Pickles, stepped through without executing anything: numbers, text, lists, dicts.

A pickle is a program that may call any function of the machine that reads it. The instructions that
`torch.save` writes are carried out here, on objects of our own; a name is never looked up.
"""

import collections
import itertools
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from lmdyn.errors import InputError

# Instructions that put a number or text on the stack begin so.
_PUSHED = ("BININT", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "BINSTRING", "BINBYTES", "SHORT_")
_MOST_INSTRUCTIONS = 2**20  # about 40 a tensor; they take 2 s


class Name(NamedTuple):
    """A class or function that a pickle names; it is never looked up.

    >>> str(Name("torch", "FloatStorage"))
    'torch.FloatStorage'
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Mark:
    """Where the items of a list, tuple or dict begin on the stack."""


def run_pickle(
    file: BinaryIO,
    calls: Mapping[Name, Callable],
    inert: Callable[[Name], bool],
    persistent: Callable[[Any], Any],
) -> Any:
    r"""What the pickle that begins at the file's position describes; the position is then after it.

    Args:
      file: binary, open for reading.
      calls: what stands in for each class or function that may be called.
      inert: whether another name may occur, which then stands for itself.
      persistent: gives the object for a persistent id.

    Raises:
      InputError: the pickle names what is not read.
      ValueError: it is malformed, or holds an instruction that `torch.save` does not write.

    >>> import io, pickle
    >>> content = pickle.dumps({"step": 3, "rate": 0.5}, protocol=2)
    >>> run_pickle(io.BytesIO(content), {}, lambda name: False, lambda given: None)
    {'step': 3, 'rate': 0.5}
    >>> import os
    >>> run_pickle(
    ...     io.BytesIO(pickle.dumps(os.mkdir)), {}, lambda name: False, lambda given: None
    ... )
    Traceback (most recent call last):
    lmdyn.errors.InputError: its pickle names posix.mkdir, which is not executed; only numbers,
    text, lists, dicts and tensors are read: save the model's state_dict
    """
    calls = {_ORDERED: _ordered, **calls}

    def named(module: str, name: str) -> Name:
        found = Name(module, name)
        if found not in calls and not inert(found):
            raise InputError(
                f"its pickle names {found!s:.120}, which is not executed; only numbers, text,"
                " lists, dicts and tensors are read: save the model's state_dict"
            )
        return found

    stack: list[Any] = []
    memo: dict[int, Any] = {}
    instructions: Iterator[Any] = pickletools.genops(file)
    for opcode, value, _ in itertools.islice(instructions, _MOST_INSTRUCTIONS):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _MADE:
            stack.append(_MADE[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else value] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name in ("APPEND", "APPENDS"):
            items = _popped(stack) if name == "APPENDS" else [stack.pop()]
            _of_type(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = _popped(stack) if name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
            _fill_dict(_of_type(stack[-1], dict), items)
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[5:] or 0)
            items = [stack.pop() for _ in range(count)][::-1] if count else _popped(stack)
            stack.append(tuple(items))
        elif name == "GLOBAL":
            stack.append(named(*value.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            wanted = stack.pop()
            stack.append(named(_of_type(stack.pop(), str), _of_type(wanted, str)))
        elif name == "REDUCE":
            arguments = _of_type(stack.pop(), tuple)
            stack.append(calls[_of_type(stack.pop(), Name)](*arguments))
        elif name == "BUILD":  # attributes of an ordered dict: versions of the modules
            stack.pop()
            _of_type(stack[-1], collections.OrderedDict)
        elif name == "BINPERSID":
            stack.append(persistent(stack.pop()))
        elif name.startswith(_PUSHED):
            stack.append(value)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle holds {name}, which torch.save does not write")
    raise ValueError(f"its pickle has more than {_MOST_INSTRUCTIONS} instructions")


_MADE: dict[str, Callable[[], Any]] = {
    "MARK": _Mark,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _popped(stack: list) -> list:
    """What lies above the last mark; both are taken off."""
    items = []
    while not isinstance(item := stack.pop(), _Mark):
        items.append(item)
    return items[::-1]


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its pickle has a {type(value).__name__} for a {kind.__name__}")
    return value


def _fill_dict(target: dict, items: list):
    """Keys are text or numbers, which hash without a look at what they hold."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int, float)):
            raise ValueError(f"its pickle has a {type(key).__name__} for a key")
        target[key] = value


_ORDERED = Name("collections", "OrderedDict")


def _ordered(items: Any = ()) -> dict:
    found = collections.OrderedDict()
    _fill_dict(found, [one for key, value in items for one in (key, value)])
    return found
