"""The recipe compiler: text in, a build dir out.

Imports no torch and no megatron, opens no socket and looks at no GPU.
"""

__version__ = "0.1.0"
