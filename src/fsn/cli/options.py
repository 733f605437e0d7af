"""Options that several commands have."""

from pathlib import Path

import click

from fsn.cli.places import default_data_dir

__all__ = ["data_dir_option"]

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: default_data_dir("node"),
    show_default="/var/lib/fsn/node as root, else in your home",
    help="The folder with everything of this node: keys, settings, index, chunks.",
)
