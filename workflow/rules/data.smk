# Datasets: their arrays, and what the image metrics compare with.


rule prepare:
    output:
        train="results/{suite}/data/{dataset}/train.npy",
        valid="results/{suite}/data/{dataset}/valid.npy",
        test="results/{suite}/data/{dataset}/test.npy",
        labels="results/{suite}/data/{dataset}/labels.json",
        dataset="results/{suite}/data/{dataset}/dataset.json",
        manifest="results/{suite}/data/{dataset}/manifest/prepare.json",
    log:
        "results/{suite}/logs/prepare/{dataset}.log",
    benchmark:
        "results/{suite}/benchmarks/prepare/{dataset}.tsv"
    threads: suite.threads
    resources:
        mem_mb=1000,
    params:
        code=code("prepare"),
        suite=says("prepare"),
    message:
        "prepare {wildcards.dataset}"
    shell:
        "python -m indm prepare --suite params/{wildcards.suite}.yaml --dataset {wildcards.dataset}"
        " --out results 2> {log}"


rule reference:
    input:
        train=rules.prepare.output.train,
        valid=rules.prepare.output.valid,
        test=rules.prepare.output.test,
        labels=rules.prepare.output.labels,
        dataset=rules.prepare.output.dataset,
        prepared=rules.prepare.output.manifest,
    output:
        extractor="results/{suite}/data/{dataset}/extractor.safetensors",
        features="results/{suite}/data/{dataset}/features.npy",
        statistics="results/{suite}/data/{dataset}/statistics.safetensors",
        reference="results/{suite}/data/{dataset}/reference.json",
        manifest="results/{suite}/data/{dataset}/manifest/reference.json",
    log:
        "results/{suite}/logs/reference/{dataset}.log",
    benchmark:
        "results/{suite}/benchmarks/reference/{dataset}.tsv"
    threads: suite.threads
    resources:
        mem_mb=lambda wildcards: (
            2000 if suite.reference[wildcards.dataset].classifier else 8000
        ),
        gpu=on_gpu,
    params:
        code=code("reference"),
        suite=says("reference"),
    message:
        "reference {wildcards.dataset}"
    shell:
        "python -m indm reference --suite params/{wildcards.suite}.yaml --dataset {wildcards.dataset}"
        " --out results 2> {log}"
