"""Run directories, read and shown. Standard library only. What is missing or torn in them is named, never a crash."""
