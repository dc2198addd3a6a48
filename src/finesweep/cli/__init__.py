"""The command line: verbs, thin. Data goes to stdout, talk to stderr; heavy rooms are imported by the verbs that need
them.

Exit codes: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Sequence

import click

from finesweep.cli import (
    artifacts,
    checking,
    comparing,
    dashboard,
    database,
    emulator,
    life,
    looking,
    production,
    starting,
    verifying,
)
from finesweep.cli.talk import MORE_ARGUMENTS, say
from finesweep.errors import FinesweepError, SpecError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        given = [*(sys.argv[1:] if arguments is None else arguments), *_more_arguments()]
        sys.exit(cli.main(args=given, prog_name="finesweep", standalone_mode=False) or 0)
    except SpecError as error:
        for fault in error.faults:
            say(str(fault))
        say(f"{len(error.faults)} fault{'s' if len(error.faults) > 1 else ''}.")
        sys.exit(2)
    except FinesweepError as error:
        say(f"Error: {error}")
        sys.exit(2)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        say(shown.getvalue().rstrip("\n"))
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        say("Interrupted.")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:  # a mistake of ours: all of it is shown, but for secrets
        say(f"{traceback.format_exc()}This is a mistake in finesweep. Please report it with the lines above.")
        sys.exit(1)


def _more_arguments() -> list[str]:
    """Take the arguments that came by the environment, once: trainers and their processes inherit it."""
    text = os.environ.pop(MORE_ARGUMENTS, "[]")
    try:
        more = json.loads(text)
    except ValueError:
        more = None
    if not isinstance(more, list) or not all(isinstance(argument, str) for argument in more):
        raise FinesweepError(f"{MORE_ARGUMENTS} is finesweep's own, for `--detach`. Unset it.")
    return more


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="finesweep")
def cli() -> None:
    """Find the right hyperparameters for fine-tuning a transformer.

    Optuna decides what to try and what to stop, Ray Tune where and when, transformers trains, one database remembers.
    """


for verb in (
    starting.init,
    checking.check,
    life.run,
    life.resume,
    life.extend,
    life.stop,
    life.delete,
    looking.status,
    looking.logs,
    looking.samples,
    comparing.compare,
    comparing.diff,
    comparing.report,
    dashboard.dashboard,
    verifying.verify,
    looking.export,
    production.train,
    production.predict,
    production.reproduce,
    database.migrate,
    artifacts.artifacts,
    emulator.emulator,
):
    cli.add_command(verb)
