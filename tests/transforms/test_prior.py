"""Statistics of gradients on disk."""

import jax.numpy as jnp
import numpy as np

from lmdyn import transforms


def test_a_strided_array_is_written_as_it_reads(tmp_path):
    """safetensors writes the memory of an array as it lies, whatever its strides."""
    turned = np.arange(12, dtype=np.float32).reshape(3, 4).T
    sparse = np.arange(12, dtype=np.float32)[::2]
    rms = transforms.GradientRMS({"head": {"kernel": turned, "bias": sparse}}, 1.0, 2)
    transforms.save_rms(tmp_path / "rms.safetensors", rms)
    found = transforms.load_rms(tmp_path / "rms.safetensors").rms["head"]
    assert jnp.array_equal(found["kernel"], turned) and jnp.array_equal(found["bias"], sparse)
