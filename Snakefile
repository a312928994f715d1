# The pipeline: params/<suite>.yaml -> results/<suite>/ -> results/table_fid.csv and table_nll.csv.
#
#   snakemake --cores all results/table_fid.csv                              params/digits.yaml, the default suite
#   snakemake --cores all --config suite=smoke -- results/table_fid.csv      another suite
#
# dvc.yaml has the same stages with the same inputs, outputs and commands; tests/test_workflow.py compares the two.

##### Suite #####

import re
import sys
from pathlib import Path

import yaml

# The package of this checkout, even where another one is installed.
sys.path.insert(0, str(workflow.basedir))

from indm.errors import ParamsError
from indm.params import load_suite

SUITE = str(config.get("suite", "digits"))
suites = ", ".join(sorted(path.stem for path in Path("params").glob("*.yaml")))

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
    suite = load_suite(Path(f"params/{SUITE}.yaml"))
except ParamsError as error:
    sys.exit(str(error))

# The modules whose edit makes a stage run again.
CODE = yaml.safe_load(Path(workflow.basedir, "workflow/stages.yaml").read_text())

##### Wildcards #####


wildcard_constraints:
    suite=re.escape(SUITE),
    dataset="|".join(map(re.escape, suite.datasets)),
    run="|".join(map(re.escape, suite.runs)),
    table="fid|nll",


##### Rules #####


report: "workflow/report/workflow.rst"


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


##### Targets #####


# Copies and the target itself: not worth a cluster's queue.
localrules:
    all,
    publish,


rule all:
    default_target: True
    input:
        expand(rules.publish.output.table, table=["fid", "nll"]),
        expand(rules.report.output.page, suite=SUITE),
