"""Feature views: declared, leak-free, as of any moment."""

from typing import Any

__all__ = ["FeatureExtractionConfig", "FeatureExtractor"]


def __getattr__(name: str) -> Any:
    # The definitions are light; the extractor brings Polars and DuckDB, which a config check must not wait for.
    if name in __all__:
        from engine.features import extractor

        return getattr(extractor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
