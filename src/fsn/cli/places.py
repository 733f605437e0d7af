"""Where daemons keep their data when nobody says."""

import os
from pathlib import Path

from platformdirs import user_data_path

__all__ = ["default_data_dir"]


def default_data_dir(part: str) -> Path:
    """The data folder of `part` ("coordinator", "node"): under /var/lib/fsn for root, else in the user's own data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/fsn") / part
    return user_data_path("fsn") / part
