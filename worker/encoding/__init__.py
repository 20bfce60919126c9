"""First room: files to embeddings."""
