"""Calls of `lmdyn.online` with the fields of `OnlineConfig` as keywords."""

from lmdyn import online


def evaluate(
    model, params, documents, *, optimizer=None, static=None, progress=False, donate=False, **config
):
    return online.evaluate(
        model,
        params,
        documents,
        optimizer,
        online.OnlineConfig(**config),
        static=static,
        progress=progress,
        donate=donate,
    )


def chunked(documents, **config):
    return online.chunk_stream(documents, online.OnlineConfig(**config))
