"""Output heads: one class per head, behind one protocol."""
