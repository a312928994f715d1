# What the rules share.

import filecmp

# What Snakemake's own report shows of the stages' outputs.
REPORTED = {
    "reports/{suite}/figures": {
        "patterns": ["{figure}.svg"],
        "caption": "../report/figures.rst",
        "category": "Figures",
        "labels": {"figure": "{figure}"},
    },
    "reports/{suite}/index.html": {
        "caption": "../report/page.rst",
        "category": "Page",
    },
}


def job_of(name, wildcards):
    """Return the job of a stage that wildcards stand for; leave with a message if the suite does not have it."""
    options = OPTIONS[STAGES[name].subject]
    job = Job(name, "-".join(wildcards[option] for option in options))
    if job.path not in STAMPS:
        sys.exit(f"params/{SUITE}.yaml: {no_such_job(suite, job)}")
    return job


def read_by(job):
    """Yield what a job reads, and the manifests of the jobs that wrote it."""
    # Snakemake has recorded no code for files that it did not make: an edit after `indm restore` would pass unseen.
    is_done = is_still_done(suite, Path("results"), job)
    if is_done is False and not workflow.touch:
        workflow.dag.forcefiles.add(manifest(job.stage).format(**job_names(suite, job)))
    # A dataset that other runs need is loaded after the restore; those who read restored results compare them with it.
    for path, maker in files_of(job):
        is_ancient = is_done and maker and STAGES[maker.stage].subject == "dataset"
        yield ancient(path) if is_ancient else path if maker else local(path)


def files_of(job):
    """Yield the files that a job reads, and the manifests of their makers, each with its maker; ``None``: the repository."""
    found = dict(job_inputs(suite, job))
    yield from found.items()
    for maker in filter(None, dict.fromkeys(found.values())):
        yield manifest(maker.stage).format(**job_names(suite, maker)), maker


def marked(path):
    """Return the path of an output with Snakemake's marks."""
    if path.startswith(f"{SHARD}/") and path in MAKERS:
        # Large, and of no use once they are gathered.
        return temp(path)
    # Folders alone have no suffix.
    path = path if "." in path else directory(path)
    return report(path, **REPORTED[path]) if path in REPORTED else path


def said_of(job):
    """Return what the suite says of a job; of the page, which shows it, the checksum of everything."""
    everything = STAGES[job.stage].keys == SECTIONS
    return suite_sha256(suite) if everything else job_parameters(suite, job)


def megabytes(job):
    """Return the MB of the machine's memory that a process of a job takes."""
    stage = STAGES[job.stage]
    if not stage.inception:
        return stage.memory
    dataset = job_names(suite, job)["dataset"]
    classifier = suite.reference[dataset].classifier
    return stage.memory + (0 if classifier else stage.inception)


def gpus(name):
    """Return how many GPUs a process of a stage uses; with `device: auto`, on this machine, one if torch sees one."""
    gathers = shard_file(name) in STAGES[name].inputs and suite.shards.numbers(name)
    # To gather shards takes none, to measure what they hold does.
    if gathers and not STAGES[name].measures:
        return 0
    if suite.device == "auto" and workflow.local_exec:
        from indm.bench.doctor import gpu_is_seen

        return int(gpu_is_seen())
    return int(suite.device != "cpu")


def foreign_copies(jobs):
    """Name the tables at results/, among those that jobs would copy, that are there and are no copies of the suite's."""
    copied = [job for job in jobs if job.rule.name == "publish"]
    places = [(Path(job.output[0]), Path(job.input[0])) for job in copied]
    return [
        str(copy) for copy, table in places if copy.is_file() and not same(copy, table)
    ]


def same(copy, table):
    return table.is_file() and filecmp.cmp(copy, table, shallow=False)


# The description of the report knows the configuration alone, and calls this where the report is made. It is an empty
# dictionary because Snakemake writes the configuration as JSON.
class Headline(dict):
    def __call__(self):
        from indm.report.page.render import render_headline

        return render_headline(Path("results", SUITE, "tables"))


config["headline"] = Headline()
