# The active suite's copies at results/.

import filecmp


def foreign_copies(jobs):
    """Name the tables at results/, among those that jobs would copy, that are there and are no copies of the suite's."""
    copied = [job for job in jobs if job.rule.name == "publish"]
    places = [(Path(job.output[0]), Path(job.input[0])) for job in copied]
    return [
        str(copy) for copy, table in places if copy.is_file() and not same(copy, table)
    ]


def same(copy, table):
    return table.is_file() and filecmp.cmp(copy, table, shallow=False)


# The path of the input changes with the suite, so Snakemake copies again when another suite becomes the active one.
rule publish:
    input:
        table=f"results/{SUITE}/tables/{{table}}.csv",
    output:
        table=report(
            "results/table_{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
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
