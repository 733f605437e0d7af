"""`python -m bench [--repeats N]`: the chunk path."""

import argparse

from bench.chunk_path import main

parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
parser.add_argument("--repeats", type=int, default=5, help="runs of each case; medians are printed (default 5)")
main(parser.parse_args().repeats)
