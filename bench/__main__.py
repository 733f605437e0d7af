"""`python -m bench [SUITE]`: the chunk path on a network of processes; statements on millions of rows; a node compared with the catalogue;
sealing in the loop and in threads; TCP beside QUIC; the statements of repair and its speed beside an upload's; a round of proofs;
the ledger."""

import argparse

from bench import carriers, catalogue, chunk_path, ledger, proof_rounds, proofs, reconciliation, repairs, sealing

parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
parser.add_argument(
    "suite",
    nargs="?",
    choices=[
        "chunks",
        "catalogue",
        "reconciliation",
        "sealing",
        "carriers",
        "repairs",
        "proof_rounds",
        "proofs",
        "ledger",
    ],
    default="chunks",
    help="default: chunks",
)
parser.add_argument("--repeats", type=int, default=5, help="runs of each case, medians are printed (default 5)")
parser.add_argument(
    "--replicas",
    type=int,
    default=3_000_000,
    help="catalogue, repairs: how many (1,200,000 or more; default 3,000,000)",
)
parser.add_argument(
    "--compared", type=int, default=1_000_000, help="reconciliation: replicas on the node (default 1,000,000)"
)
parser.add_argument(
    "--audited", type=int, default=1_000_000, help="proof_rounds: replicas on 100 nodes (default 1,000,000)"
)
args = parser.parse_args()
if args.suite in ("catalogue", "repairs") and args.replicas < 1_200_000:
    parser.error(f"the catalogue needs 1,200,000 replicas or more; got {args.replicas}")
if args.suite == "catalogue":
    catalogue.main(args.replicas)
elif args.suite == "carriers":
    carriers.main(args.repeats)
elif args.suite == "reconciliation":
    reconciliation.main(args.compared)
elif args.suite == "ledger":
    ledger.main(args.repeats)
elif args.suite == "proofs":
    proofs.main(args.repeats)
elif args.suite == "repairs":
    repairs.main(args.replicas, args.repeats)
elif args.suite == "proof_rounds":
    proof_rounds.main(args.audited)
elif args.suite == "sealing":
    sealing.main(args.repeats)
else:
    chunk_path.main(args.repeats)
