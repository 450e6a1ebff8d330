"""`make large`: a gateway with 10,000 agents, 10,000 tools and a million tasks, compared with an empty one in the same run."""
