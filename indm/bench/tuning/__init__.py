"""The search of hyper-parameters: suggestions and records of Optuna, and the training and measurement of a trial."""
