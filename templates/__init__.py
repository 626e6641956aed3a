"""The templates of the build dir. Data only."""
