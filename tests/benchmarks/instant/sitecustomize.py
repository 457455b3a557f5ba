"""Give every process a teacher that needs no time. Python loads this by itself, from PYTHONPATH."""

import pipeline.teacher
from tests.benchmarks.instant.teacher import InstantTeacher

pipeline.teacher.load_teacher = lambda config, decoding, revision: InstantTeacher()
