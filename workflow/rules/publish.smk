# The active suite's copies at results/.


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
