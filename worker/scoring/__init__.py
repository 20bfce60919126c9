"""Second room: embeddings to scores. NumPy and scikit-learn only."""
