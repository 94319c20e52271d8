"""Files of `torch.save`, read without executing anything, against what `torch` put into them."""

import collections
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from lmdyn import checkpoints
from lmdyn.checkpoints.formats.folder import read_folder
from lmdyn.checkpoints.formats.pytorch import read_tensors
from lmdyn.errors import InputError
from tests.checkpoints.cases import CASES, random_model, write_tokenizer
from tests.checkpoints.test_folders import equal

torch = pytest.importorskip("torch")
FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])


def save(value, path: pathlib.Path, zipped: bool) -> pathlib.Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def tensors() -> collections.OrderedDict:
    """Every float type; views with an offset, strides, a shared storage; an empty one; a mask."""
    base = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    return collections.OrderedDict(
        base=base,
        part=base[1:4, ::2],
        turned=base.T,
        parameter=torch.nn.Parameter(base[2]),
        bfloat=base.bfloat16(),
        half=base.half()[3:],
        double=base.double(),
        mask=torch.ones(3, 3, dtype=torch.bool).tril(),
        counts=torch.arange(5),
        empty=torch.empty(0, 4),
        repeated=torch.ones(3).expand(2, 3),
    )


@FORMS
def test_every_tensor_is_what_was_saved(zipped, tmp_path):
    saved = tensors()
    found = read_tensors(save(saved, tmp_path / "t.bin", zipped))
    assert found.keys() == saved.keys()
    for name, value in saved.items():
        got, wanted = found[name].read(0, len(value)), value.detach().double().numpy()
        assert np.array_equal(got.astype(np.float64), wanted), name
        assert np.array_equal(found[name].read(1, 2).astype(np.float64), wanted[1:2]), name
    kinds = {name: found[name].type for name in ("base", "bfloat", "half", "double", "counts")}
    assert list(kinds.values()) == ["F32", "BF16", "F16", "F64", "I64"]


@FORMS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_trainers_file_holds_the_parameters_under_a_key(key, zipped, tmp_path):
    state = torch.nn.Linear(2, 3).state_dict()
    path = save({"step": 3, key: state, "loss": 0.5}, tmp_path / "t.pt", zipped)
    assert read_tensors(path).keys() == {"weight", "bias"}


REFUSED = {
    "a model": (torch.nn.Linear(2, 3), "names torch.nn.modules.linear.Linear, which is not exec"),
    "an array": ({"x": np.zeros(3)}, "names numpy._core.multiarray._reconstruct"),
    "complex": ({"x": torch.zeros(3, dtype=torch.complex64)}, "type torch.ComplexFloatStorage"),
    "sparse": ({"x": torch.eye(3).to_sparse()}, "names torch._utils._rebuild_sparse_tensor"),
    "a list": ([1], "holds a list, not the dict"),
    "numbers": ({"step": 3}, "entry 'step' is not a tensor"),
    "one tensor": (torch.zeros(3), "not the dict of a model's tensors"),
}


@FORMS
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_dict_of_tensors_is_refused_by_name(name, zipped, tmp_path):
    value, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        read_tensors(save(value, tmp_path / "t.bin", zipped))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class Calls:
    """Pickled as a call of a function, as an attacker would pickle one of more than this."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["whole", "value", "key"])
def test_no_function_is_called(where, protocol, tmp_path):
    made = tmp_path / "made"
    call = Calls(os.mkdir, str(made))
    value = {"whole": call, "value": {"x": call}, "key": {call: 1}}[where]
    content = pickle.dumps(value, protocol=protocol)
    with zipfile.ZipFile(tmp_path / "t.bin", "w") as file:
        file.writestr("t/data.pkl", content)
    (tmp_path / "u.bin").write_bytes(content)
    for name in ("t.bin", "u.bin"):
        with pytest.raises(InputError):
            read_tensors(tmp_path / name)
    assert not made.exists()


def test_mutated_files_are_read_or_refused_in_one_line(tmp_path):
    """Eighteen thousand were tried while this was written, by the same kinds of change."""
    generator = np.random.default_rng(0)
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4).bfloat16())
    contents = [
        save(state.state_dict(), tmp_path / "t.bin", zipped).read_bytes()
        for zipped in (True, False)
    ]
    path, refused = tmp_path / "m.bin", []
    for number in range(1000):
        content = bytearray(contents[number % 2])
        for at in generator.integers(0, min(len(content), 700), generator.integers(1, 5)):
            change = generator.integers(0, 256, generator.integers(0, 9), dtype=np.uint8)
            content[at : at + generator.integers(0, 9)] = change.tobytes()
        path.write_bytes(content)
        try:
            for tensor in read_tensors(path).values():
                tensor.read(0, 1)
        except InputError as err:
            refused.append(str(err))
    assert len(refused) > 500
    assert not any("\n" in line for line in refused)


def test_a_folder_of_pytorch_files_is_the_folder_of_safetensors(tmp_path):
    model = random_model("gpt2", CASES["gpt2"].options)
    model.save_pretrained(tmp_path / "a")
    state = model.state_dict()  # holds the tied head too, in the same storage
    for name in ("one", "other", "shards"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((tmp_path / "a/config.json").read_bytes())
    torch.save(state, tmp_path / "one/pytorch_model.bin")
    torch.save({"model": state}, tmp_path / "other/ckpt.pt")
    torch.save({"state": 1}, tmp_path / "other/optimizer.pt")
    names, index = list(state), {}
    for number, part in enumerate((names[:7], names[7:]), 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: state[name] for name in part}, tmp_path / "shards" / file)
        index |= dict.fromkeys(part, file)
    text = str({"weight_map": index}).replace("'", '"')
    (tmp_path / "shards/pytorch_model.bin.index.json").write_text(text)
    wanted = read_folder(tmp_path / "a")
    for name in ("one", "other", "shards"):
        found = read_folder(tmp_path / name)
        assert found.config == wanted.config
        assert equal(found.params, wanted.params)
    write_tokenizer(tmp_path / "one", ["<|endoftext|>", "a"])
    assert checkpoints.load(f"dir:{tmp_path}/one").model.config == wanted.config


def test_an_index_may_not_name_files_elsewhere(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "../other.bin"}}')
    with pytest.raises(InputError, match=r"lists \.\./other.bin, which is outside the folder"):
        read_folder(tmp_path)
