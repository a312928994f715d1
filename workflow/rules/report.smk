# Tables of the suite, the active suite's copies at results/, figures and the page.


rule table:
    input:
        samples=paths(rules.sample.output.protocol, run=suite.runs, allow_missing=True),
        fid=paths(rules.fid.output.fid, run=suite.runs, allow_missing=True),
        nll=paths(rules.nll.output.nll, run=suite.runs, allow_missing=True),
        train=paths(rules.train.output.train, run=suite.runs, allow_missing=True),
        curve=paths(rules.curve.output.curve, run=suite.runs, allow_missing=True),
        sweep=paths(rules.sweep.output.sweep, run=suite.runs, allow_missing=True),
        protocol=paths(
            rules.protocol.output.protocol, dataset=suite.protocol, allow_missing=True
        ),
        toy2d=paths(
            rules.toy2d.output.table, toy=suite.toy2d.datasets, allow_missing=True
        ),
        reference=paths(
            rules.reference.output.reference,
            dataset=suite.datasets,
            allow_missing=True,
        ),
        published=local("params/published.csv"),
    output:
        values="results/{suite}/tables/values.csv",
        fid="results/{suite}/tables/fid.csv",
        nll="results/{suite}/tables/nll.csv",
        discretization="results/{suite}/tables/discretization.csv",
        learning_curve="results/{suite}/tables/learning_curve.csv",
        ablation="results/{suite}/tables/ablation.csv",
        protocol="results/{suite}/tables/protocol.csv",
        toy2d="results/{suite}/tables/toy2d.csv",
    log:
        "results/{suite}/logs/table.log",
    benchmark:
        "results/{suite}/benchmarks/table.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("table"),
        runs={
            name: run.model_dump(exclude={"train", "sample"})
            for name, run in suite.runs.items()
        },
        protocol={dataset: section.run for dataset, section in suite.protocol.items()},
        toy2d=list(suite.toy2d.datasets),
    message:
        "table"
    shell:
        "python -m indm table --suite params/{wildcards.suite}.yaml --out results 2> {log}"


# Apart from the other tables: times differ from one execution to the next. They are read from provenance/, which is no
# output of a stage.
rule compute:
    input:
        train=paths(rules.train.output.train, run=suite.runs, allow_missing=True),
        samples=paths(rules.sample.output.protocol, run=suite.runs, allow_missing=True),
    output:
        compute="results/{suite}/tables/compute.csv",
    log:
        "results/{suite}/logs/compute.log",
    benchmark:
        "results/{suite}/benchmarks/compute.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("compute"),
        runs=rules.table.params.runs,
    message:
        "compute"
    shell:
        "python -m indm compute --suite params/{wildcards.suite}.yaml --out results 2> {log}"


rule claims:
    input:
        values=rules.table.output.values,
        fid=rules.table.output.fid,
        nll=rules.table.output.nll,
        claims=local("params/claims.yaml"),
        published=local("params/published.csv"),
    output:
        claims="results/{suite}/tables/claims.csv",
        comparison="results/{suite}/tables/comparison.csv",
    log:
        "results/{suite}/logs/claims.log",
    benchmark:
        "results/{suite}/benchmarks/claims.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("claims"),
    message:
        "claims"
    shell:
        "python -m indm claims --suite params/{wildcards.suite}.yaml --out results 2> {log}"


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


# A folder: which figures there are depends on what the suite's tables hold.
rule figure:
    input:
        tables=[f"results/{{suite}}/tables/{name}.csv" for name in SHOWN],
        toy2d=paths(
            rules.toy2d.output.arrays, toy=suite.toy2d.datasets, allow_missing=True
        ),
    output:
        figures=report(
            directory("reports/{suite}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{suite}/logs/figure.log",
    benchmark:
        "results/{suite}/benchmarks/figure.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("figure"),
    message:
        "figure"
    shell:
        "python -m indm figure --suite params/{wildcards.suite}.yaml --out results --reports reports 2> {log}"


rule report:
    input:
        tables=rules.figure.input.tables,
        figures=rules.figure.output.figures,
        grids=paths(rules.sample.output.grid, run=suite.runs, allow_missing=True),
        neighbours=paths(
            rules.sample.output.neighbours, run=suite.runs, allow_missing=True
        ),
        description=paths(
            rules.prepare.output.dataset,
            dataset=suite.datasets,
            allow_missing=True,
        ),
        reference=rules.table.input.reference,
    output:
        page=report(
            "reports/{suite}/index.html",
            caption="../report/page.rst",
            category="Page",
        ),
    log:
        "results/{suite}/logs/report.log",
    benchmark:
        "results/{suite}/benchmarks/report.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("report"),
        suite=suite_sha256(suite),
    message:
        "report"
    shell:
        "python -m indm report --suite params/{wildcards.suite}.yaml --out results --reports reports 2> {log}"
