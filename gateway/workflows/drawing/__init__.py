"""Pictures of a workflow: a tree for terminals, Mermaid for documents."""
