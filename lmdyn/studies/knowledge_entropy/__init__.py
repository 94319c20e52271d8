"""The study `knowledge_entropy`."""
