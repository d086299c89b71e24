"""maestro-engine: one declared pipeline from sources to a feature store."""
