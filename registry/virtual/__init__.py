"""Virtual servers: which tools of which servers they show, and how."""
