# A rule for each stage of indm/bench/pipeline/stages.py.


# In a function, because Snakemake evaluates `shell` again when a job runs: in a bare loop, with the names of the last stage.
def declare(name, stage):
    options = OPTIONS[stage.subject]
    subject = "-".join(f"{{{option}}}" for option in options)
    place = f"{name}/{subject}" if subject else name
    processes = suite.processes if stage.distributed else 1
    job = partial(job_of, name)
    gpu = {"gpu": lambda wildcards: processes * gpus(name)} if stage.on_device else {}
    said = {"suite": lambda wildcards: said_of(job(wildcards))} if stage.keys else {}

    rule:
        name:
            name
        input:
            lambda wildcards: read_by(job(wildcards)),
        output:
            [marked(path) for path in (*stage.written, manifest(name))],
        log:
            f"results/{{suite}}/logs/{place}.log",
        benchmark:
            f"results/{{suite}}/benchmarks/{place}.tsv"
        threads: processes * suite.threads
        resources:
            **gpu,
            mem_mb=lambda wildcards: processes * megabytes(job(wildcards)),
        params:
            **said,
            code=lambda wildcards: STAMPS[job(wildcards).path],
        message:
            " ".join((name, *(f"{{wildcards.{option}}}" for option in options)))
        shell:
            stage.command(name).replace("{", "{wildcards.") + " 2> {log}"


for name, stage in STAGES.items():
    declare(name, stage)
