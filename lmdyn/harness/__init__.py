"""Any model of ours on public benchmarks, through EleutherAI's lm-evaluation-harness (`eval`).

They show what an update or an adaptation forgot beyond the texts at hand.

    import lm_eval, lmdyn.harness
    lm = lmdyn.harness.Harness("gguf:SmolLM2-135M-Instruct.Q4_1.gguf")
    lm_eval.simple_evaluate(model=lm, tasks=["lambada_openai"], limit=100)["results"]

Adapted parameters, such as `lmdyn.online.evaluate(...).params`, are passed as `params`.
"""

try:
    import lm_eval as _  # noqa: F401
except ImportError:
    raise ImportError(
        "lmdyn.harness needs lm-evaluation-harness; install it with: pip install 'lmdyn[eval]'"
    ) from None

from lmdyn.harness.adapter import Harness

__all__ = ["Harness"]
