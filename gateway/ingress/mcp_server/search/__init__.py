"""Search mode: ranks tools by how well they fit a task (BM25)."""
