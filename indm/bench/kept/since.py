"""How the code has changed since kept results were made: stated with the results, and no reason to refuse them."""

import re

from indm.bench.pipeline.code import counts
from indm.bench.pipeline.input_check import InputCheck
from indm.bench.pipeline.jobs import Job
from indm.bench.pipeline.stamps import SHORT, Difference, changes
from indm.errors import ArtifactError
from indm.store.files import AGAIN

# A module, its hash then and its hash now.
LINE = r"^\S+ ([0-9a-f]{10}|none) ([0-9a-f]{10}|none)$"


def changes_since(checks: InputCheck, job: Job) -> list[Difference]:
    """List the modules that have changed since a job was done, by its manifest, without those that have stopped to count.

    Raises:
        ArtifactError: if the manifest is damaged, belongs to another job, or lists no modules, as earlier versions did not.
    """
    made = checks.read(job)
    hashes = {"stamp": made.stamp[:SHORT], **made.modules}
    if not made.modules or not all(re.match(LINE, f"{name} {sha256} none") for name, sha256 in hashes.items()):
        words = "found no hashes of modules, expected the modules of the code that did the job"
        raise ArtifactError(f"{checks.manifest(job)}: {words}; {AGAIN}")
    stage = "import_checkpoint" if checks.is_imported(job, made) else job.stage
    found = changes(checks.suite, stage, job.subject, made.stamp, made.modules)
    return [each for each in found if each.what != "gone" or counts(each.name)]
