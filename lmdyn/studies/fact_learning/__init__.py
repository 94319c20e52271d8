"""The study `fact_learning`."""
