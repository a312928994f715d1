"""The tests: without what the environment says of products, as the command line is; before a module imports torch."""

from indm.process import unset_fpmath

unset_fpmath()
