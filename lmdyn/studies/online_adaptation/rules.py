"""The update rules that the study of online adaptation compares."""

import optax


def adam_without_momentum(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam with b1 = 0.

    Each coordinate's step is its gradient over a running root mean square of it.
    """
    return optax.adam(learning_rate, b1=0.0)


UPDATE_RULES = {
    "SGD": optax.sgd,
    "AdamW": optax.adamw,
    "Adam, no momentum": adam_without_momentum,
    "RMS rule": None,
}
"""`learning_rate -> optimizer` by name; the RMS rule needs a model's gradient statistics."""
