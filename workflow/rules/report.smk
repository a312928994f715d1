# Tables of the suite, and the active suite's copies at results/.


rule table:
    input:
        samples=expand(rules.sample.output.protocol, run=suite.runs, allow_missing=True),
        fid=expand(rules.fid.output.fid, run=suite.runs, allow_missing=True),
        nll=expand(rules.nll.output.nll, run=suite.runs, allow_missing=True),
        reference=expand(
            rules.reference.output.reference,
            dataset=suite.datasets,
            allow_missing=True,
        ),
        published="params/published.csv",
        code=CODE["table"],
    output:
        fid="results/{suite}/tables/fid.csv",
        nll="results/{suite}/tables/nll.csv",
    log:
        "results/{suite}/logs/table.log",
    benchmark:
        "results/{suite}/benchmarks/table.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        runs={
            name: run.model_dump(exclude={"train", "sample"})
            for name, run in suite.runs.items()
        },
    message:
        "table"
    shell:
        "python -m indm table --suite params/{wildcards.suite}.yaml --out results 2> {log}"


# The path of the input changes with the suite, so Snakemake copies again when another suite becomes the active one.
rule publish:
    input:
        table=f"results/{SUITE}/tables/{{table}}.csv",
    output:
        table="results/table_{table}.csv",
    log:
        f"results/{SUITE}/logs/publish/{{table}}.log",
    benchmark:
        f"results/{SUITE}/benchmarks/publish/{{table}}.tsv"
    threads: 1
    resources:
        mem_mb=100,
    message:
        "publish {output.table}"
    shell:
        # By way of a temporary name: a killed copy leaves no half table.
        "(cp {input.table} results/.table_{wildcards.table}.csv.tmp"
        " && mv results/.table_{wildcards.table}.csv.tmp {output.table}) 2> {log}"
