"""The search of hyper-parameters: what Optuna suggests and keeps, and how a trial is trained and measured."""
