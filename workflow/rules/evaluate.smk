# Evaluation of a run: its images, their metrics, its likelihoods at the end and along the training; fewer steps; other
# protocols of FID.


rule sample:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=of_run(rules.prepare.output.train),
        dataset=of_run(rules.prepare.output.dataset),
    output:
        samples="results/{suite}/runs/{run}/samples.npy",
        protocol="results/{suite}/runs/{run}/samples.json",
        grid="results/{suite}/runs/{run}/samples.png",
        neighbours="results/{suite}/runs/{run}/neighbours.png",
    log:
        "results/{suite}/logs/sample/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/sample/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=int(suite.device != "cpu"),
    params:
        code=code("sample"),
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        sample=lambda wildcards: suite.sample_params(wildcards.run).model_dump(),
        weights=suite.weights.model_dump(),
    message:
        "sample {wildcards.run}"
    shell:
        "python -m indm sample --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule fid:
    input:
        samples=rules.sample.output.samples,
        extractor=of_run(rules.reference.output.extractor),
        features=of_run(rules.reference.output.features),
        statistics=of_run(rules.reference.output.statistics),
        dataset=of_run(rules.prepare.output.dataset),
    output:
        fid="results/{suite}/runs/{run}/fid.json",
    log:
        "results/{suite}/logs/fid/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/fid/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=lambda wildcards: (
            2000
            if suite.reference[suite.runs[wildcards.run].dataset].classifier
            else 6000
        ),
        gpu=int(suite.device != "cpu"),
    params:
        code=code("fid"),
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        fid=suite.fid.model_dump(),
        weights=suite.weights.model_dump(),
    message:
        "fid {wildcards.run}"
    shell:
        "python -m indm fid --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule nll:
    input:
        checkpoint=rules.train.output.checkpoint,
        test=of_run(rules.prepare.output.test),
        dataset=of_run(rules.prepare.output.dataset),
    output:
        images="results/{suite}/runs/{run}/nll.csv",
        nll="results/{suite}/runs/{run}/nll.json",
    log:
        "results/{suite}/logs/nll/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/nll/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=int(suite.device != "cpu"),
    params:
        code=code("nll"),
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "model", "seed"}
        ),
        nll=suite.nll.model_dump(),
        weights=suite.weights.model_dump(),
    message:
        "nll {wildcards.run}"
    shell:
        "python -m indm nll --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule curve:
    input:
        snapshots=rules.train.output.snapshots,
        valid=of_run(rules.prepare.output.valid),
        test=of_run(rules.prepare.output.test),
        dataset=of_run(rules.prepare.output.dataset),
    output:
        curve="results/{suite}/runs/{run}/curve.csv",
    log:
        "results/{suite}/logs/curve/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/curve/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=int(suite.device != "cpu"),
    params:
        code=code("curve"),
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        curve=suite.curve.model_dump(),
        weights=suite.weights.model_dump(),
    message:
        "curve {wildcards.run}"
    shell:
        "python -m indm curve --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule sweep:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=of_run(rules.prepare.output.train),
        extractor=of_run(rules.reference.output.extractor),
        features=of_run(rules.reference.output.features),
        statistics=of_run(rules.reference.output.statistics),
        dataset=of_run(rules.prepare.output.dataset),
    output:
        sweep="results/{suite}/runs/{run}/sweep.csv",
    log:
        "results/{suite}/logs/sweep/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/sweep/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=int(suite.device != "cpu"),
    params:
        code=code("sweep"),
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        sample=lambda wildcards: suite.sample_params(wildcards.run).model_dump(),
        weights=suite.weights.model_dump(),
        sweep=suite.sweep.model_dump(),
        fid=suite.fid.model_dump(),
    message:
        "sweep {wildcards.run}"
    shell:
        "python -m indm sweep --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule protocol:
    input:
        checkpoint=lambda wildcards: paths(
            rules.train.output.checkpoint,
            suite=SUITE,
            run=suite.protocol[wildcards.dataset].run,
        ),
        train=rules.prepare.output.train,
        valid=rules.prepare.output.valid,
        test=rules.prepare.output.test,
        extractor=rules.reference.output.extractor,
        features=rules.reference.output.features,
        statistics=rules.reference.output.statistics,
        dataset=rules.prepare.output.dataset,
    output:
        protocol="results/{suite}/protocol/{dataset}.csv",
    log:
        "results/{suite}/logs/protocol/{dataset}.log",
    benchmark:
        "results/{suite}/benchmarks/protocol/{dataset}.tsv"
    threads: suite.threads
    resources:
        mem_mb=12000,
        gpu=int(suite.device != "cpu"),
    params:
        code=code("protocol"),
        protocol=lambda wildcards: suite.protocol[wildcards.dataset].model_dump(),
        sample=lambda wildcards: suite.sample_params(
            suite.protocol[wildcards.dataset].run
        ).model_dump(),
        seed=lambda wildcards: suite.runs[suite.protocol[wildcards.dataset].run].seed,
        fid=suite.fid.model_dump(),
        weights=suite.weights.model_dump(),
    message:
        "protocol {wildcards.dataset}"
    shell:
        "python -m indm protocol --suite params/{wildcards.suite}.yaml --dataset {wildcards.dataset}"
        " --out results 2> {log}"
