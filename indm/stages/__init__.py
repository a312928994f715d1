"""The stages of the pipeline: each reads its inputs, calls, and writes its outputs; no mathematics.

Every module here has one function ``run(suite, layout, subject)``, which returns the folder it wrote to. A stage has a module
of its own so that an edit to one stage's code does not make another stage run again.
"""
