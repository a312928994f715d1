# Evaluation of a run: its images, their FID and KID, its likelihoods, at the end and along the training.


rule sample:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=lambda wildcards: expand(
            rules.prepare.output.train,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        dataset=lambda wildcards: expand(
            rules.prepare.output.dataset,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        code=CODE["sample"],
    output:
        samples="results/{suite}/runs/{run}/samples.npy",
        protocol="results/{suite}/runs/{run}/samples.json",
        grid="results/{suite}/runs/{run}/samples.png",
    log:
        "results/{suite}/logs/sample/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/sample/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=int(suite.device != "cpu"),
    params:
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        sample=lambda wildcards: suite.sample_params(wildcards.run).model_dump(),
    message:
        "sample {wildcards.run}"
    shell:
        "python -m indm sample --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule fid:
    input:
        samples=rules.sample.output.samples,
        extractor=lambda wildcards: expand(
            rules.reference.output.extractor,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        features=lambda wildcards: expand(
            rules.reference.output.features,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        dataset=lambda wildcards: expand(
            rules.prepare.output.dataset,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        code=CODE["fid"],
    output:
        fid="results/{suite}/runs/{run}/fid.json",
    log:
        "results/{suite}/logs/fid/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/fid/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=int(suite.device != "cpu"),
    params:
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        fid=suite.fid.model_dump(),
    message:
        "fid {wildcards.run}"
    shell:
        "python -m indm fid --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule nll:
    input:
        checkpoint=rules.train.output.checkpoint,
        test=lambda wildcards: expand(
            rules.prepare.output.test,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        dataset=lambda wildcards: expand(
            rules.prepare.output.dataset,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        code=CODE["nll"],
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
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "model", "seed"}
        ),
        nll=suite.nll.model_dump(),
    message:
        "nll {wildcards.run}"
    shell:
        "python -m indm nll --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule curve:
    input:
        snapshots=rules.train.output.snapshots,
        valid=lambda wildcards: expand(
            rules.prepare.output.valid,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        test=lambda wildcards: expand(
            rules.prepare.output.test,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        dataset=lambda wildcards: expand(
            rules.prepare.output.dataset,
            suite=SUITE,
            dataset=suite.runs[wildcards.run].dataset,
        ),
        code=CODE["curve"],
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
        run=lambda wildcards: suite.runs[wildcards.run].model_dump(
            include={"dataset", "seed"}
        ),
        curve=suite.curve.model_dump(),
    message:
        "curve {wildcards.run}"
    shell:
        "python -m indm curve --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"
