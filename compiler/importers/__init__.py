"""Configurations of other tools to recipes.

Each importer reads its source into `Setting`s, in Megatron's names; `settle` finds the recipe key of each and accounts
for every one; `text` writes the recipe; `finish` puts the result through the checks of `sftc validate`. Nothing here
executes anything, reads the environment or looks at a GPU.
"""
