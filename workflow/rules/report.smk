# Tables of the suite, the active suite's copies at results/, figures and the page.

MEASURED = (
    "train",
    "sample",
    "fid",
    "nll",
    "curve",
    "sweep",
    "tune",
    "reference",
    "protocol",
    "toy2d",
)
TABLED = ("table", "compute", "claims")


rule table:
    input:
        samples=all_of("sample", "protocol"),
        fid=all_of("fid", "fid"),
        nll=all_of("nll", "nll"),
        nll_images=all_of("nll", "images"),
        train=all_of("train", "train"),
        curve=all_of("curve", "curve"),
        curve_images=all_of("curve", "images"),
        sweep=all_of("sweep", "sweep"),
        tune=all_of("tune", "trials"),
        protocol=all_of("protocol", "protocol"),
        toy2d=all_of("toy2d", "table"),
        reference=all_of("reference", "reference"),
        published=local("params/published.csv"),
        manifests=[all_of(name, "manifest") for name in MEASURED],
    output:
        values="results/{suite}/tables/values.csv",
        images="results/{suite}/tables/images.csv",
        fid="results/{suite}/tables/fid.csv",
        nll="results/{suite}/tables/nll.csv",
        discretization="results/{suite}/tables/discretization.csv",
        learning_curve="results/{suite}/tables/learning_curve.csv",
        ablation="results/{suite}/tables/ablation.csv",
        protocol="results/{suite}/tables/protocol.csv",
        toy2d="results/{suite}/tables/toy2d.csv",
        tuning="results/{suite}/tables/tuning.csv",
        tuned="results/{suite}/tables/tuned.csv",
        manifest="results/{suite}/tables/manifest/table.json",
    log:
        "results/{suite}/logs/table.log",
    benchmark:
        "results/{suite}/benchmarks/table.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("table"),
        suite=says("table"),
    message:
        "table"
    shell:
        "python -m indm table --suite params/{wildcards.suite}.yaml --out results 2> {log}"


# Apart from the other tables: times differ from one execution to the next. They are read from provenance/, which is no
# output of a stage.
rule compute:
    input:
        train=all_of("train", "train"),
        samples=all_of("sample", "protocol"),
        manifests=[all_of(name, "manifest") for name in ("train", "sample")],
    output:
        compute="results/{suite}/tables/compute.csv",
        manifest="results/{suite}/tables/manifest/compute.json",
    log:
        "results/{suite}/logs/compute.log",
    benchmark:
        "results/{suite}/benchmarks/compute.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("compute"),
        suite=says("compute"),
    message:
        "compute"
    shell:
        "python -m indm compute --suite params/{wildcards.suite}.yaml --out results 2> {log}"


rule claims:
    input:
        values=rules.table.output.values,
        images=rules.table.output.images,
        fid=rules.table.output.fid,
        nll=rules.table.output.nll,
        claims=local("params/claims.yaml"),
        published=local("params/published.csv"),
        tabled=rules.table.output.manifest,
    output:
        claims="results/{suite}/tables/claims.csv",
        comparison="results/{suite}/tables/comparison.csv",
        effects="results/{suite}/tables/effects.csv",
        power="results/{suite}/tables/power.csv",
        manifest="results/{suite}/tables/manifest/claims.json",
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
        toy2d=all_of("toy2d", "arrays"),
        manifests=[all_of(name, "manifest") for name in TABLED],
        studied=all_of("toy2d", "manifest"),
    output:
        figures=report(
            directory("reports/{suite}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        manifest="reports/{suite}/manifest/figure.json",
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
        values=rules.table.output.values,
        figures=rules.figure.output.figures,
        grids=all_of("sample", "grid"),
        neighbours=all_of("sample", "neighbours"),
        diffusion=all_of("sample", "diffusion"),
        description=all_of("prepare", "dataset"),
        reference=all_of("reference", "reference"),
        claims=local("params/claims.yaml"),
        registrations=local("params/registrations.yaml"),
        manifests=[all_of(name, "manifest") for name in TABLED],
        drawn=rules.figure.output.manifest,
        sampled=all_of("sample", "manifest"),
        prepared=all_of("prepare", "manifest"),
        referenced=all_of("reference", "manifest"),
    output:
        page=report(
            "reports/{suite}/index.html",
            caption="../report/page.rst",
            category="Page",
        ),
        manifest="reports/{suite}/manifest/report.json",
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
