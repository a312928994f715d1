# Two-dimensional data: one job for each dataset, all models and seeds in it.


rule toy2d:
    output:
        table="results/{suite}/toy2d/{toy}.csv",
        arrays="results/{suite}/toy2d/{toy}.safetensors",
        manifest="results/{suite}/toy2d/{toy}/manifest/toy2d.json",
    log:
        "results/{suite}/logs/toy2d/{toy}.log",
    benchmark:
        "results/{suite}/benchmarks/toy2d/{toy}.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("toy2d"),
        suite=says("toy2d"),
    message:
        "toy2d {wildcards.toy}"
    shell:
        "python -m indm toy2d --suite params/{wildcards.suite}.yaml --toy {wildcards.toy}"
        " --out results 2> {log}"
