"""Search mode: the tools that fit what a model wants to do, ranked by BM25."""
