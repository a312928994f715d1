# Models: one job for each run of the suite.


rule train:
    input:
        train=of_run(rules.prepare.output.train),
        dataset=of_run(rules.prepare.output.dataset),
        prepared=of_run(rules.prepare.output.manifest),
    output:
        checkpoint="results/{suite}/runs/{run}/checkpoint.safetensors",
        snapshots="results/{suite}/runs/{run}/snapshots.safetensors",
        curve="results/{suite}/runs/{run}/train.csv",
        train="results/{suite}/runs/{run}/train.json",
        manifest="results/{suite}/runs/{run}/manifest/train.json",
    log:
        "results/{suite}/logs/train/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/train/{run}.tsv"
    threads: suite.threads * suite.processes
    resources:
        mem_mb=2000 * suite.processes,
        gpu=lambda wildcards: suite.processes * on_gpu(wildcards),
    params:
        code=code("train"),
        suite=says("train"),
    message:
        "train {wildcards.run}"
    shell:
        "python -m indm train --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"
