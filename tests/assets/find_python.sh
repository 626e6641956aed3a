#!/usr/bin/env bash
# Prints the path of a Python >= 3.12 that can make environments; one sentence on stderr and status 1 where there is none.
# Every candidate is run, because a name on PATH may be a shim that answers for no version.
set -u
test='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))'
for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.13 python3.14 python3 python \
  "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
  if command -v "$candidate" > /dev/null && "$candidate" -c "$test" 2> /dev/null; then
    command -v "$candidate"
    exit 0
  fi
done
echo "sftc needs Python 3.12 or newer with the venv module: install it, or name one with: make PYTHON=/path/to/python3.12" >&2
exit 1
