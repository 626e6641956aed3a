"""Whether every node can train what was compiled, found out before anything is trained."""
