"""What the documentation has measured: without what the environment says of products, before a module imports torch."""

from indm.process import unset_fpmath

unset_fpmath()
