"""Third room: scores to a report."""

import os
from importlib.util import find_spec
from pathlib import Path

# Before matplotlib is imported: it would not be with a backend that is missing here, as with the one that every
# notebook names for the programs that it starts; and a person's own settings are for their own charts.
os.environ["MPLBACKEND"] = "agg"
if (_matplotlib := find_spec("matplotlib")) is not None and _matplotlib.origin is not None:
    os.environ["MATPLOTLIBRC"] = str(Path(_matplotlib.origin).with_name("mpl-data") / "matplotlibrc")
