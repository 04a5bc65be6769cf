"""Name every user attribute that a sweep keeps in Optuna's studies: what it is, who writes it, who reads it.

The databases of unfinished sweeps hold these names: one may be added here, but none changed. By how much a trial breaks
`study.constraints` is no user attribute: Optuna stores that itself.
"""

# Of a study ----------------------------------------------------------------------------------------------------------

IDENTITY = "identity"
"""JSON of `SweepConfig.identity`, in each arm's study. `open_studies` writes it at the first start, and later refuses a sweep with another."""

WARM_START = "warm_start"
"""JSON of the points that the arm tries first because they were best in the sweeps of `study.warm_start`, in each arm's study. `open_studies`
writes it at the first start, so that the earlier sweeps are not read again."""

# Of the distilled arm's study, for the whole sweep: what `Agreements` and `Clock` store

MATERIALS = "materials"
"""{"teacher weights", "rows"}: hashes of the first worker's. `Agreements.agree` refuses workers that have others."""
LATENCIES = "latencies"
"""Milliseconds (p50) of each student architecture as measured first. `Agreements.agreed_latency` writes and reads them."""
FORM_COSTS = "form_costs"
"""By "int8 ARCHITECTURE": milliseconds (p50) and megabytes of an exported form of each student architecture as measured first, by the names
of `study.constraints`. Written and read by `Agreements.agreed_form_cost`."""
PRECISIONS = "precisions"
"""The precision that `precision: auto` meant first on each kind of machine. Written and read by `Agreements.agreed_precision`."""
TEACHER_THREADS = "teacher_threads"
"""{"auto": what `teacher_threads: auto` meant first}. Written and read by `Agreements.agreed_teacher_threads`."""
TRACKING = "tracking"
"""{"sweep_key": what the ids of the sweep's W&B runs end with}. Written and read by `Agreements.sweep_key`."""
CLOCK = "clock"
"""[seconds during which any worker ran, time of the last tick]. Every running worker writes it; read for `study.timeout_minutes`."""

# Of the finalists' study

EPOCHS_FACTOR = "epochs_factor"
"""`finalists.epochs_factor` of the finalists queued; missing: 1. `FinalistsQueue.enqueue` writes it, and `check_length` refuses another one."""

LAST_ROUND = "last_round"
"""{"round", "search"}: the `ROUND` of the finalists queued last, and JSON of what ends their search and chooses them. By it `FinalistsQueue`
gives those that begin before the search's end and those queued then one round; missing in databases of older versions."""

# Of a trial ----------------------------------------------------------------------------------------------------------

ATTEMPT = "attempt"
"""How many times the trial was taken, from 1. `Studies.take` writes it; by it, a worker finds that another one has taken its trial since."""
OWNER = "owner"
"""Name of the process that runs it (`new_owner`). `Studies.take` writes it, `Storage.put_back` removes it, `Studies.settle` reads it."""
DEATHS = "deaths"
"""How many workers died while they ran the trial. `Studies.settle` writes it, and fails the trial at `study.max_attempts`."""
TWIN = "twin"
"""Number of the ended trial with the same parameters whose result it took. `Studies.finish_like` writes it; a trial that has it is never ranked."""
RECORD = "record"
"""The finished trial as `packed_trial` returns it. The worker that finished the trial writes it; hosts without its folder unpack it."""

# Of a finalist's trial: which trial of the search it repeats. `FinalistsQueue.enqueue` writes them

ARM = "arm"
"""Arm of the trial that the finalist repeats."""
TRIAL = "trial"
"""Number of the trial that the finalist repeats."""
SEED = "seed"
"""The finalist's fresh seed."""
ROUND = "round"
"""1 for the finalists of the first search; one higher for each later time that a longer search queued more."""
