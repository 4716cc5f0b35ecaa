"""The file that Airflow parses: makes the lake's DAGs from `lake.yaml`.

Point Airflow's `dags_folder` at the folder of this file, or copy the file into one that has others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from airflow.sdk import get_parsing_context

# Airflow puts only the DAG folder on the path, and the rooms lie beside it
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dags.build import dags_of
from dags.settings import Settings
from lake.declaration import read_lake

_settings = Settings.from_environment(os.environ)
for _dag in dags_of(read_lake(_settings.lake), _settings, only=get_parsing_context().dag_id):
    globals()[_dag.dag_id] = _dag
