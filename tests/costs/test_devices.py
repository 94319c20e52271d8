"""Peaks by device name, and operations of a step against the textbook count."""

import types

import pytest

from lmdyn.costs import peak_flops, step_flops
from lmdyn.models import ModelConfig, shapes
from lmdyn.params import flatten, partition


@pytest.mark.parametrize(
    "kind, wanted",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", None),
        ("Some New Device", None),
    ],
)
def test_peaks(kind, wanted):
    device = types.SimpleNamespace(device_kind=kind)
    assert peak_flops(device) == wanted
    assert peak_flops(device, "float32") is None


def test_a_step_is_six_operations_a_weight_and_token_and_the_attention():
    """Kaplan et al. 2020 (arXiv 2001.08361), table 1; the attention's causal half is counted in
    blocks of queries.
    """
    config = ModelConfig(
        vocab=500, width=96, depth=3, heads=4, head_width=24, mlp_width=200, positions=512
    )
    weights = sum(
        leaf.size for path, leaf in flatten(shapes(config)).items() if path[-1] == "kernel"
    )
    found = step_flops(config, rows=7, length=512)
    least = 7 * 512 * 6 * weights
    # scores and sums, forward; five products backward; queries meet on average somewhat more than
    # half of the keys
    attention = 7 * 3 * 96 * (4 + 10) * 512 * 512 / 2
    assert least + attention <= found <= least + 1.3 * attention


def test_frozen_parts_cost_less():
    config = ModelConfig(
        vocab=500, width=96, depth=8, heads=4, head_width=24, mlp_width=200, positions=512
    )
    part = lambda selector: step_flops(config, 1, 128, partition(shapes(config), selector))
    assert (
        part("blocks[7]")
        < part("blocks[4:]")
        < part("blocks")
        < part("all")
        == step_flops(config, 1, 128)
    )
    # the forward pass, the gradient through the head, and one block of eight
    assert part("blocks[7]") < 0.6 * part("all")
