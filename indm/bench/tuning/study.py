r"""The study of a model: its finished trials, in a file of Optuna's, and Optuna's next suggestion.

The tree-structured Parzen estimator suggests, separately for each hyper-parameter :math:`\lambda`, the candidate with the
largest :math:`\ell(\lambda)/g(\lambda)`, where the two densities are fitted to the better and to the other trials before it.
The first :data:`STARTUP` trials are random. A suggestion depends only on the study's seed, the trial's number, the
hyper-parameter's name and the trials before it. Therefore a study that was killed makes the same suggestions as an undisturbed
one, and the random trials of all models with the same seed have the same values of the hyper-parameters that they share.

A trial is recorded in one piece when it has ended, so that a kill does not leave half a trial.

References:
    | Algorithms for Hyper-Parameter Optimization (Bergstra et al., 2011), section 4
    | https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
    | Optuna (Akiba et al., 2019), https://arxiv.org/abs/1907.10902
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from indm.progress import say
from indm.seeding import derive_seed

# Random trials before the first suggested one. Optuna's default of 10 is the number of all trials in a search here.
STARTUP = 4
# Candidates for each hyper-parameter, of which the best is suggested; Optuna's default.
CANDIDATES = 24
# Digits of a suggestion, as in a result file, so that the file contains the values of the training.
DIGITS = 4

Row = dict[str, Any]


class Study:
    """The trials of a model.

    Arguments:
        path: Optuna's file; a file with another key is removed. The caller has locked its folder.
        key: key of its trials, by :func:`indm.bench.pipeline.runner.work_of`.
        space: the least and the greatest value of each hyper-parameter, and whether its logarithm is sampled.
        seed: identity from which every suggestion is derived.
    """

    def __init__(
        self, path: Path, key: str, space: Mapping[str, tuple[float, float, bool]], seed: tuple[str | int, ...]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = {name: FloatDistribution(low, high, log=log) for name, (low, high, log) in space.items()}
        self.seed = seed
        storage = _open(path, key)
        # Longer trainings are not trials for Optuna, because values at other lengths are not comparable.
        self.short, self.longer = (
            optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
            for name in (key, f"{key} longer")
        )
        self.rows: dict[tuple[int, int], Row] = {
            (trial.user_attrs["trial"], trial.user_attrs["steps"]): trial.user_attrs
            for study in (self.short, self.longer)
            for trial in study.trials
        }

    def parameters(self, trial: int) -> dict[str, float]:
        """Return the hyper-parameters of a finished trial, or suggest hyper-parameters for the next one."""
        known = self.short.trials
        if trial < len(known):
            return known[trial].params
        return {name: self._suggest(trial, name, distribution) for name, distribution in self.space.items()}

    def once(self, trial: int, steps: int, make: Callable[[], Row]) -> Row:
        """Return the measurements of a trial after a number of steps; make and keep them first if there are none.

        Arguments:
            trial: its number, from 0; the next one, or a finished one.
            steps: steps of the training.
            make: makes ``target``, to be minimised (``None`` if it failed), and other values to be kept as JSON.
        """
        if (trial, steps) not in self.rows:
            parameters, row = self.parameters(trial), make() | {"trial": trial, "steps": steps}
            study = self.short if trial == len(self.short.trials) else self.longer
            study.add_trial(self._finished(parameters, row))
            self.rows[trial, steps] = row
        return self.rows[trial, steps]

    def _finished(self, parameters: Mapping[str, float], row: Row) -> FrozenTrial:
        """Return a trial for Optuna; a failed trial is marked as pruned, so that it counts as the worst and is not ignored."""
        state = TrialState.PRUNED if row["target"] is None else TrialState.COMPLETE
        return create_trial(
            state=state, value=row["target"], params=dict(parameters), distributions=dict(self.space), user_attrs=row
        )

    def _suggest(self, trial: int, name: str, distribution: FloatDistribution) -> float:
        """Ask a copy of the study in memory for a value, because the study itself would keep an unfinished trial."""
        sampler = TPESampler(
            n_startup_trials=STARTUP,
            n_ei_candidates=CANDIDATES,
            multivariate=False,
            constant_liar=False,
            # NumPy's seeds have 32 bits.
            seed=derive_seed(*self.seed, "suggestion", trial, name) % 2**32,
        )
        copy = optuna.create_study(sampler=sampler)
        copy.add_trials(self.short.trials)
        value = copy.ask({name: distribution}).params[name]
        return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)


def _open(path: Path, key: str) -> JournalStorage:
    """Open a file of Optuna's, without a last line that a power cut left unfinished or the lock of a killed process."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.is_file():
        # Truncated in place, because rewriting could leave an empty file after a kill.
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    storage = JournalStorage(JournalFileBackend(str(path)))
    names = [study.study_name for study in storage.get_all_studies()]
    if names and key not in names:
        say(f"{path}: removing the trials of other parameters, data, code or versions")
        path.unlink()
        storage = JournalStorage(JournalFileBackend(str(path)))
    return storage
