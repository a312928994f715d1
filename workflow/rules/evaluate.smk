# Evaluation of a run, in shards if the suite says so: its images, their metrics, its likelihoods at the end and along the
# training; fewer steps; other protocols of FID.


rule sample_shard:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=of_run(rules.prepare.output.train),
        dataset=of_run(rules.prepare.output.dataset),
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
    output:
        # Large, and of no use once they are gathered.
        batches=temp("results/{suite}/runs/{run}/shards/{shard}/sample.safetensors"),
        manifest="results/{suite}/runs/{run}/shards/{shard}/manifest/sample_shard.json",
    log:
        "results/{suite}/logs/sample_shard/{run}-{shard}.log",
    benchmark:
        "results/{suite}/benchmarks/sample_shard/{run}-{shard}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=on_gpu,
    params:
        code=code("sample_shard"),
        suite=says("sample_shard"),
    message:
        "sample_shard {wildcards.run} {wildcards.shard}"
    shell:
        "python -m indm sample-shard --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --shard {wildcards.shard} --out results 2> {log}"


rule sample:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=of_run(rules.prepare.output.train),
        dataset=of_run(rules.prepare.output.dataset),
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
        shards=shards_of("sample", "batches"),
        sharded=shards_of("sample", "manifest"),
    output:
        samples="results/{suite}/runs/{run}/samples.npy",
        protocol="results/{suite}/runs/{run}/samples.json",
        grid="results/{suite}/runs/{run}/samples.png",
        neighbours="results/{suite}/runs/{run}/neighbours.png",
        diffusion="results/{suite}/runs/{run}/diffusion.png",
        manifest="results/{suite}/runs/{run}/manifest/sample.json",
    log:
        "results/{suite}/logs/sample/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/sample/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        # To gather shards takes none.
        gpu=on_gpu if suite.shards.sample == 1 else 0,
    params:
        code=code("sample"),
        suite=says("sample"),
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
        sampled=rules.sample.output.manifest,
        referenced=of_run(rules.reference.output.manifest),
        prepared=of_run(rules.prepare.output.manifest),
    output:
        fid="results/{suite}/runs/{run}/fid.json",
        manifest="results/{suite}/runs/{run}/manifest/fid.json",
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
        gpu=on_gpu,
    params:
        code=code("fid"),
        suite=says("fid"),
    message:
        "fid {wildcards.run}"
    shell:
        "python -m indm fid --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule nll_shard:
    input:
        checkpoint=rules.train.output.checkpoint,
        test=of_run(rules.prepare.output.test),
        dataset=of_run(rules.prepare.output.dataset),
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
    output:
        # Large, and of no use once they are gathered.
        batches=temp("results/{suite}/runs/{run}/shards/{shard}/nll.safetensors"),
        manifest="results/{suite}/runs/{run}/shards/{shard}/manifest/nll_shard.json",
    log:
        "results/{suite}/logs/nll_shard/{run}-{shard}.log",
    benchmark:
        "results/{suite}/benchmarks/nll_shard/{run}-{shard}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=on_gpu,
    params:
        code=code("nll_shard"),
        suite=says("nll_shard"),
    message:
        "nll_shard {wildcards.run} {wildcards.shard}"
    shell:
        "python -m indm nll-shard --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --shard {wildcards.shard} --out results 2> {log}"


rule nll:
    input:
        checkpoint=rules.train.output.checkpoint,
        test=of_run(rules.prepare.output.test),
        dataset=of_run(rules.prepare.output.dataset),
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
        shards=shards_of("nll", "batches"),
        sharded=shards_of("nll", "manifest"),
    output:
        images="results/{suite}/runs/{run}/nll.csv",
        nll="results/{suite}/runs/{run}/nll.json",
        manifest="results/{suite}/runs/{run}/manifest/nll.json",
    log:
        "results/{suite}/logs/nll/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/nll/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        # To gather shards takes none.
        gpu=on_gpu if suite.shards.nll == 1 else 0,
    params:
        code=code("nll"),
        suite=says("nll"),
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
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
    output:
        curve="results/{suite}/runs/{run}/curve.csv",
        images="results/{suite}/runs/{run}/curve_images.csv",
        manifest="results/{suite}/runs/{run}/manifest/curve.json",
    log:
        "results/{suite}/logs/curve/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/curve/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=on_gpu,
    params:
        code=code("curve"),
        suite=says("curve"),
    message:
        "curve {wildcards.run}"
    shell:
        "python -m indm curve --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule sweep_shard:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=of_run(rules.prepare.output.train),
        dataset=of_run(rules.prepare.output.dataset),
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
    output:
        # Large, and of no use once they are gathered.
        batches=temp("results/{suite}/runs/{run}/shards/{shard}/sweep.safetensors"),
        manifest="results/{suite}/runs/{run}/shards/{shard}/manifest/sweep_shard.json",
    log:
        "results/{suite}/logs/sweep_shard/{run}-{shard}.log",
    benchmark:
        "results/{suite}/benchmarks/sweep_shard/{run}-{shard}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=on_gpu,
    params:
        code=code("sweep_shard"),
        suite=says("sweep_shard"),
    message:
        "sweep_shard {wildcards.run} {wildcards.shard}"
    shell:
        "python -m indm sweep-shard --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --shard {wildcards.shard} --out results 2> {log}"


rule sweep:
    input:
        checkpoint=rules.train.output.checkpoint,
        train=of_run(rules.prepare.output.train),
        extractor=of_run(rules.reference.output.extractor),
        features=of_run(rules.reference.output.features),
        statistics=of_run(rules.reference.output.statistics),
        dataset=of_run(rules.prepare.output.dataset),
        trained=rules.train.output.manifest,
        prepared=of_run(rules.prepare.output.manifest),
        referenced=of_run(rules.reference.output.manifest),
        shards=shards_of("sweep", "batches"),
        sharded=shards_of("sweep", "manifest"),
    output:
        sweep="results/{suite}/runs/{run}/sweep.csv",
        manifest="results/{suite}/runs/{run}/manifest/sweep.json",
    log:
        "results/{suite}/logs/sweep/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/sweep/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=on_gpu,
    params:
        code=code("sweep"),
        suite=says("sweep"),
    message:
        "sweep {wildcards.run}"
    shell:
        "python -m indm sweep --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
        " --out results 2> {log}"


rule tune:
    input:
        train=of_run(rules.prepare.output.train),
        valid=of_run(rules.prepare.output.valid),
        extractor=of_run(rules.reference.output.extractor),
        dataset=of_run(rules.prepare.output.dataset),
        prepared=of_run(rules.prepare.output.manifest),
        referenced=of_run(rules.reference.output.manifest),
    output:
        tune="results/{suite}/runs/{run}/tune.json",
        trials="results/{suite}/runs/{run}/tune.csv",
        manifest="results/{suite}/runs/{run}/manifest/tune.json",
    log:
        "results/{suite}/logs/tune/{run}.log",
    benchmark:
        "results/{suite}/benchmarks/tune/{run}.tsv"
    threads: suite.threads
    resources:
        mem_mb=2000,
        gpu=on_gpu,
    params:
        code=code("tune"),
        suite=says("tune"),
    message:
        "tune {wildcards.run}"
    shell:
        "python -m indm tune --suite params/{wildcards.suite}.yaml --run {wildcards.run}"
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
        trained=lambda wildcards: paths(
            rules.train.output.manifest,
            suite=SUITE,
            run=suite.protocol[wildcards.dataset].run,
        ),
        prepared=rules.prepare.output.manifest,
        referenced=rules.reference.output.manifest,
    output:
        protocol="results/{suite}/protocol/{dataset}.csv",
        manifest="results/{suite}/protocol/{dataset}/manifest/protocol.json",
    log:
        "results/{suite}/logs/protocol/{dataset}.log",
    benchmark:
        "results/{suite}/benchmarks/protocol/{dataset}.tsv"
    threads: suite.threads
    resources:
        mem_mb=12000,
        gpu=on_gpu,
    params:
        code=code("protocol"),
        suite=says("protocol"),
    message:
        "protocol {wildcards.dataset}"
    shell:
        "python -m indm protocol --suite params/{wildcards.suite}.yaml --dataset {wildcards.dataset}"
        " --out results 2> {log}"
