# What the rules share.


def paths(pattern, **values):
    """Do as expand() with an output of a rule; where results lie in a storage, without it: Snakemake adds it to plain paths."""
    if stored := pattern.flags.get("storage_object"):
        pattern = stored.query.removeprefix(
            workflow.storage_settings.default_storage_prefix
        ).lstrip("/")
    return expand(pattern, **values)
