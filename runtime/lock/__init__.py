"""What the inputs of a run were when it was locked, and whether they still are. Standard library and Jinja only."""
