r"""The study of an arm: what Optuna has been told, in a file of Optuna's, and what it suggests next.

The tree-structured Parzen estimator suggests, for each hyper-parameter :math:`\lambda` on its own, the candidate with the largest
:math:`\ell(\lambda)/g(\lambda)`; the two densities are of the better and of the other trials before it. The first
:data:`STARTUP` trials are drawn at random. A suggestion depends on the study's seed, the trial's number, the hyper-parameter's
name and the trials before it, and on nothing else: so that a study that was killed suggests what an undisturbed one would, and
the random trials of all arms with one seed have the same values of the hyper-parameters that they share.

A trial is told in one piece when it has ended, so that no kill leaves half of one.

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

# Trials drawn at random before the first that is suggested. Optuna's own 10 are as many as a search here has in all.
STARTUP = 4
# Candidates for each hyper-parameter, of which the best is suggested: Optuna's own number.
CANDIDATES = 24
# Of what is suggested: as many as a result file has, so that it holds what was trained with.
DIGITS = 4

Row = dict[str, Any]


class Study:
    """The trials of an arm.

    Arguments:
        path: Optuna's file; one of another key is removed. The caller has locked its folder.
        key: what its trials belong to, by :func:`indm.store.scratch.work_key`.
        space: the least and the greatest value of each hyper-parameter, and whether its logarithm is drawn.
        seed: identity from which every suggestion is derived.
    """

    def __init__(
        self, path: Path, key: str, space: Mapping[str, tuple[float, float, bool]], seed: tuple[str | int, ...]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = {name: FloatDistribution(low, high, log=log) for name, (low, high, log) in space.items()}
        self.seed = seed
        storage = _open(path, key)
        # Those trained again for longer are no trials for Optuna: their values are of other lengths.
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
        """Return the hyper-parameters of a trial that is known, or suggest those of the next one."""
        known = self.short.trials
        if trial < len(known):
            return known[trial].params
        return {name: self._suggest(trial, name, distribution) for name, distribution in self.space.items()}

    def once(self, trial: int, steps: int, make: Callable[[], Row]) -> Row:
        """Return what was measured of a trial trained for so many steps; make and keep it first where nothing was.

        Arguments:
            trial: its number, from 0; the next one, or one that is known.
            steps: of the training.
            make: makes ``target``, to be minimised (``None`` if it failed), and what else is to be kept as JSON.
        """
        if (trial, steps) not in self.rows:
            parameters, row = self.parameters(trial), make() | {"trial": trial, "steps": steps}
            study = self.short if trial == len(self.short.trials) else self.longer
            study.add_trial(self._finished(parameters, row))
            self.rows[trial, steps] = row
        return self.rows[trial, steps]

    def _finished(self, parameters: Mapping[str, float], row: Row) -> FrozenTrial:
        """Set a trial as Optuna keeps it: one that failed as pruned, which counts as the worst, not as if it had not been."""
        state = TrialState.PRUNED if row["target"] is None else TrialState.COMPLETE
        return create_trial(
            state=state, value=row["target"], params=dict(parameters), distributions=dict(self.space), user_attrs=row
        )

    def _suggest(self, trial: int, name: str, distribution: FloatDistribution) -> float:
        """Ask for a value in a copy of the study in memory: asked itself, it would keep a trial that has not ended."""
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
    """Open a file of Optuna's: without a last line that a power cut left unfinished, nor the lock of a process that was killed."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.is_file():
        # Cut in place, not written again: a kill would leave an empty file.
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    storage = JournalStorage(JournalFileBackend(str(path)))
    names = [study.study_name for study in storage.get_all_studies()]
    if names and key not in names:
        say(f"{path}: removes the trials of other parameters, data, code or versions")
        path.unlink()
        storage = JournalStorage(JournalFileBackend(str(path)))
    return storage
