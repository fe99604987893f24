"""The asv suite: one file a question, every benchmark on one thread."""
