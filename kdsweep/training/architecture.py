"""Say on which fields a student's speed and size depend."""

import json

from kdsweep.config.roles import Role, Trait, having
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import ROLES, TEXT_FIELDS

SPEED_FIELDS = sorted(having(TrialConfig, Trait.SPEED), key=lambda name: -min(ROLES[name], Role.STUDENT_TOKENS))
"""Fields on which the student's speed depends: the student's, the teacher's, the tokens', in the order that sweeps have in their records."""
VOCABULARY_FIELDS = (
    "student_vocabulary",
    *(name for name, role in ROLES.items() if role is Role.TRAIN_ROWS),
    *TEXT_FIELDS,
    "teacher_file",
)
"""Fields that decide the pieces of a student whose vocabulary is trained, beside its tokenizer and the rows that all trials share."""


def speed_fields(config: TrialConfig) -> tuple[str, ...]:
    """Return the fields on which the speed and the size of the student of `config` depend."""
    return (*SPEED_FIELDS, *(VOCABULARY_FIELDS if config.student_vocabulary == "trained" else ()))


def architecture(config: TrialConfig) -> str:
    """Return these fields with their values, as JSON: what a sweep has in its records, where a student_body is there only where one is named."""
    idle = () if config.student_body else ("student_body", "student_body_revision")
    return json.dumps({name: getattr(config, name) for name in speed_fields(config) if name not in idle})
