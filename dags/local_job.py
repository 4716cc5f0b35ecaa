"""Owns the local runner: a job as the `lakehose` command, on the machine of the Airflow worker."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["BAD_INPUT", "LocalJob", "inherited"]

BAD_INPUT = 2
"""Exit status of a job that no retry can help."""
_STOP_SECONDS = 30


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What of Airflow's environment the command gets: all but what makes Airflow's Python and Airflow's settings."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW", "__AIRFLOW")) and name not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }


class LocalJob(BaseOperator):  # type: ignore[misc]
    """Run a command of the product's environment; its output is the task's log.

    Exit status 2 (bad input) fails the task at once, any other but 0 is tried again as the job declares.

    Args:
        command: program and arguments.
    """

    ui_color = "#d9ead3"

    def __init__(self, *, command: Sequence[str], **options: object) -> None:
        super().__init__(**options)
        self.command = list(command)
        self._hook = SubprocessHook()

    def execute(self, context: Context) -> None:  # noqa: ARG002 - the signature is Airflow's
        """Run it to its end.

        Raises:
            AirflowFailException: the command isn't there, or found its input wrong: it is not tried again.
            AirflowException: it failed otherwise.
        """
        try:
            done = self._hook.run_command(self.command, env=inherited(os.environ))
        except (FileNotFoundError, PermissionError) as error:
            raise AirflowFailException(
                f"{self.command[0]}: can't be started ({error.strerror}); set LAKEHOSE_BIN to the lakehose command "
                "of the product's environment"
            ) from None
        if done.exit_code == BAD_INPUT:
            raise AirflowFailException(done.output)
        if done.exit_code:
            raise AirflowException(f"exit status {done.exit_code}: {done.output}")

    def on_kill(self) -> None:
        """End the command and all it has started: it goes on where it was when it runs again."""
        process = self._hook.sub_process
        if process is None or process.poll() is not None:
            return
        self._hook.send_sigterm()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
