"""Name every user attribute that a sweep keeps in Optuna's studies: what it is, who writes it, who reads it.

The values stand in the databases of sweeps that go on: a name may be added here, but none changed. By how much a trial breaks
`study.constraints` is no user attribute: Optuna keeps that itself.
"""

# Of a study ----------------------------------------------------------------------------------------------------------

IDENTITY = "identity"
"""JSON of `SweepConfig.identity`, of each arm. `Studies` writes it at the first start, and refuses another sweep by it later."""

# Of the distilled arm's study, for the whole sweep: what `Agreements` and `Clock` keep

MATERIALS = "materials"
"""{"teacher weights", "rows"}: hashes of what the first worker met. `Agreements.agree` refuses workers that bring others."""
LATENCIES = "latencies"
"""Milliseconds (p50) of each student architecture as measured first. `Agreements.agreed_latency` gives every trial the same."""
PRECISIONS = "precisions"
"""What `precision: auto` meant first on each kind of machine. Written and read by `Agreements.agreed_precision`."""
TEACHER_THREADS = "teacher_threads"
"""{"auto": what `teacher_threads: auto` meant first}. Written and read by `Agreements.agreed_teacher_threads`."""
TRACKING = "tracking"
"""{"sweep_key": how the ids of its W&B runs end}. Written and read by `Agreements.sweep_key`."""
CLOCK = "clock"
"""[seconds that the sweep was worked on, time of the last tick]. Written by every living worker, read for `study.timeout_minutes`."""

# Of a trial ----------------------------------------------------------------------------------------------------------

ATTEMPT = "attempt"
"""How many times it was taken, from 1. `Studies.take` writes it; an attempt that was overtaken finds by it that it is a spare."""
OWNER = "owner"
"""The process that runs it (host, number, a word). `Studies.take` writes it, `Storage.put_back` removes it, `Studies.settle` asks if it lives."""
DEATHS = "deaths"
"""How many workers died while they ran it. `Studies.settle` writes it, and fails the trial at `study.max_attempts`."""
TWIN = "twin"
"""The number of the earlier trial with the same parameters from which it was answered. `Studies.finish_like` writes it; it is never ranked."""
RECORD = "record"
"""The finished trial as `packed_trial` makes it. The worker that told the trial writes it; hosts without its folder unpack it."""

# Of a finalist's trial: which trial of the search it runs once more. `FinalistsQueue.enqueue` writes them

ARM = "arm"
"""The arm of that trial."""
TRIAL = "trial"
"""Its number."""
SEED = "seed"
"""The fresh seed."""
ROUND = "round"
"""1; higher where the search had gone on and chosen others after the test split was opened."""
