# What the rules share.


def paths(pattern, **values):
    """Do as expand() with an output of a rule; where results lie in a storage, without it: Snakemake adds it to plain paths."""
    if stored := pattern.flags.get("storage_object"):
        pattern = stored.query.removeprefix(
            workflow.storage_settings.default_storage_prefix
        ).lstrip("/")
    return expand(pattern, **values)


def of_run(pattern):
    """Return the input function for an output of a dataset's rule: that of the dataset of the run in question."""
    return lambda wildcards: paths(
        pattern, suite=SUITE, dataset=suite.runs[wildcards.run].dataset
    )


def code(stage):
    """Return the parameter by which a job runs again when its code does something else: what it works on decides which."""
    return lambda wildcards: job_stamp(
        suite,
        stage,
        next((wildcards[key] for key in SUBJECTS if key in wildcards.keys()), ""),
    )


SUBJECTS = ("run", "dataset", "toy")
