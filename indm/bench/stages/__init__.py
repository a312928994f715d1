"""The stages of the pipeline, which read inputs, call other packages and write outputs, without any mathematics.

Every module here has one function ``run(suite, layout, subject)``, which returns the folder it wrote to. Each stage has a
separate module, so that an edit to one stage's code does not make another stage run again.
"""
