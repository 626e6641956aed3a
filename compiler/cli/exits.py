"""Exit codes. 0 is done, and 2, a bad command line, is click's."""

ERRORS, DRIFT, REFUSED, BUG, INTERRUPTED = 1, 3, 4, 70, 130
