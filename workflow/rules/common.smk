# What the rules share.

import filecmp


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
    return lambda wildcards: job_stamp(suite, stage, subject(wildcards))


def says(stage):
    """Return the parameter by which a job runs again when the suite says something else of it."""
    return lambda wildcards: job_parameters(suite, Job(stage, subject(wildcards)))


def subject(wildcards):
    """Return what a job works on, empty where its stage has one job."""
    if "shard" in wildcards.keys():
        return f"{wildcards.run}-{wildcards.shard}"
    return next((wildcards[key] for key in SUBJECTS if key in wildcards.keys()), "")


def all_of(stage, output):
    """Return an output of all jobs of a stage; of one job, where it has one."""
    names = {STAGES[stage].subject: STAGES[stage].subjects(suite)}
    names.pop("", None)
    return paths(getattr(rules, stage).output[output], **names, allow_missing=True)


def shards_of(stage, output):
    """Return the input function for an output of the shards of a run; where the suite has none, it returns nothing."""
    pattern = getattr(rules, f"{stage}_shard").output[output]
    numbers = suite.shards.numbers(stage)
    return lambda wildcards: paths(
        pattern, suite=SUITE, run=wildcards.run, shard=numbers
    )


def foreign_copies(jobs):
    """Name the tables at results/, among those that jobs would copy, that are there and are no copies of the suite's."""
    copies = {
        Path(job.output[0]): Path(job.input[0])
        for job in jobs
        if job.rule.name == "publish"
    }
    return [
        str(copy)
        for copy, table in copies.items()
        if copy.is_file()
        and not (table.is_file() and filecmp.cmp(copy, table, shallow=False))
    ]


def on_gpu(_):
    """Return 1 where a job uses a GPU, else 0; with `device: auto`, a job on this machine does so if torch sees one."""
    if suite.device == "auto" and workflow.local_exec:
        return int(gpu_is_seen())
    return int(suite.device != "cpu")


SUBJECTS = ("run", "dataset", "toy")


# The description of the report knows the configuration alone, and calls this where the report is made. It is an empty
# dictionary because Snakemake writes the configuration as JSON.
class Headline(dict):
    def __call__(self):
        from indm.report.page.render import render_headline

        return render_headline(Path("results", SUITE, "tables"))


config["headline"] = Headline()
