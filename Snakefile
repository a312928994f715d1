# The pipeline: params/<suite>.yaml -> results/<suite>/ -> results/table_*.csv.
#
#   snakemake --cores all results/table_fid.csv                              params/digits.yaml, the default suite
#   snakemake --cores all --config suite=smoke -- results/table_fid.csv      another suite
#
# dvc.yaml has the same stages with the same inputs, outputs and commands; tests/test_workflow.py compares the two.

##### Suite #####

import gc
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from snakemake.utils import min_version

# The lower bound of pyproject.toml.
min_version("9.14")

# Garbage is not looked for among what is imported and read here: that is a fifth of the time of finding nothing to do.
gc.disable()

# The package of this checkout, even where another one is installed.
sys.path.insert(0, str(workflow.basedir))

from indm.__main__ import large_pages
from indm.errors import IndmError
from indm.bench.pipeline.interpreter import put_first
from indm.bench.pipeline.jobs import (
    MAKERS,
    Job,
    job_inputs,
    job_names,
    job_parameters,
    manifest,
    no_such_job,
)
from indm.bench.pipeline.stages import (
    OPTIONS,
    SECTIONS,
    SHARD,
    SHOWN,
    STAGES,
    shard_file,
)
from indm.bench.pipeline.restored import is_still_done
from indm.bench.pipeline.track import remember_start
from indm.shipped import DEFAULT_SUITE
from indm.bench.suite.expand import suite_files
from indm.bench.suite.load import load_params, suite_sha256

# The Python of this Snakemake runs the jobs, too.
put_first(os.environ)
# Jobs take this from here, so that none has to start again for it.
os.environ.update(large_pages())

SUITE = str(config.get("suite", DEFAULT_SUITE))
suites = ", ".join(path.stem for path in suite_files(Path("params")))

# Values given with --config or --configfile would silently differ from the file that the stages read.
if unknown := ", ".join(sorted(set(config) - {"suite"})):
    sys.exit(
        f"snakemake --config: found {unknown}; allowed: suite alone; all else is set in params/<suite>.yaml"
    )
if SUITE not in suites.split(", "):
    sys.exit(
        f"snakemake --config: found suite {SUITE!r}; allowed: a file of params/: {suites or 'found none'}"
    )
try:
    # The last stages alone read the claims and what else lies there: a mistake in them is better known before the first.
    suite = load_params(Path(f"params/{SUITE}.yaml"))
    STAMPS = remember_start(suite)
except IndmError as error:
    sys.exit(str(error))

gc.freeze()
gc.enable()


##### Wildcards #####

# Part of a path, and not a list of the suite's names: Snakemake reads a constraint again for each file, so that the time of
# a plan would grow with the square of the number of runs. job_of knows the names.
NAME = "[^/]+"


wildcard_constraints:
    suite=re.escape(SUITE),
    dataset=NAME,
    run=NAME,
    table="|".join(SHOWN),
    shard="[1-9][0-9]*",
    toy=NAME,


##### Rules #####


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/stages.smk"
include: "workflow/rules/publish.smk"


##### Before the first job #####


# What `indm doctor` says is missing for the jobs that are to run. A dry run does not come here, nor Snakemake in a job.
onstart:
    from indm.bench.doctor import requirements, work_of

    jobs = workflow.dag.needrun_jobs()
    # Touched, another suite's copies would be taken for this one's.
    if workflow.touch and (foreign := foreign_copies(jobs)):
        sys.exit(
            f"snakemake --touch: found {', '.join(foreign)} of another suite, or of other runs, expected copies of results/{SUITE}/tables/; "
            "delete results/table_*.csv, then run it again"
        )
    jobs = [] if workflow.touch else jobs
    named = [
        job_of(job.rule.name, job.wildcards)
        for job in jobs
        if job.rule.name in STAGES
    ]
    work = work_of(suite, named)
    # The GPU of a cluster is on another machine than this.
    work = replace(work, compute=workflow.local_exec and work.compute)
    # These checks need images or networks. They run in a separate process, since torch would stay in this one.
    suite_file = f"params/{SUITE}.yaml"
    validate = [sys.executable, "-m", "indm", "validate", "--suite", suite_file]
    if jobs and (
        code := subprocess.run(
            validate, check=False, stdout=subprocess.DEVNULL
        ).returncode
    ):
        sys.exit(code)
    if gaps := requirements(suite, work, out=Path("results")):
        sys.exit("\n".join(gaps))


##### Targets #####


# Copies and the target itself: not worth a cluster's queue.
localrules:
    all,
    publish,


rule all:
    default_target: True
    input:
        expand("results/table_{table}.csv", table=SHOWN),
        f"reports/{SUITE}/figures",
        f"reports/{SUITE}/index.html",
