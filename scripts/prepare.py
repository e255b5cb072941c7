"""Turn the competition's raw training files into a prepared folder: float16 shards and an index.

    python scripts/prepare.py --raw train_samples --out data/fwi

Every source file becomes one shard, half its size. A run that was killed goes on where it stopped
when it is started again. `--verify` checks a prepared folder against its checksums instead, for
example after it was copied to another machine.
"""

import argparse

from comp.core.errors import run_script
from comp.fwi.prepare import prepare, verify


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--raw",
        metavar="FOLDER",
        help="the competition's train_samples: one folder per family, with data/dataN.npy and "
        "model/modelN.npy, or seis*.npy and vel*.npy",
    )
    action.add_argument("--verify", action="store_true", help="check the checksums of --out")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the prepared folder")
    args = parser.parse_args()
    if args.verify:
        verify(args.out)
        print(f"{args.out}: every file as it was written")
    else:
        prepare(args.raw, args.out)


if __name__ == "__main__":
    run_script(main)
