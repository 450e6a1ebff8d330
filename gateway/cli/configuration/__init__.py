"""Configuration as code: documents of agents, servers, virtual servers and workflows, their plan, and what carries it out."""
