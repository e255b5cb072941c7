"""Simulate shot records of velocity maps with the exact forward model, as training or test data.

python scripts/simulate.py --families FlatVel_A CurveVel_A --count 80 --out data/demo
python scripts/simulate.py --families FlatVel_A CurveVel_A --count 20 --as-test --out data/demo_test

The first writes a prepared folder; the second test/<id>.npy as the competition has them, their
truth and a sample submission. Generated test data share no map with training data, whatever their
seeds; with --maps, give --skip (the training data's --count) to the test data. Killed and started
again, it goes on where it stopped.
"""

import argparse

from comp.core.errors import InputError, run_script
from comp.fwi.maps import generated_maps, given_maps
from comp.fwi.simulated import write_test, write_training
from comp.fwi.survey import OFFICIAL
from comp.fwi.velocity import FAMILIES


def main() -> None:
    """Parse, choose the maps, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", required=True, help="folder to write; finished if an earlier run was killed")
    add("--families", nargs="+", help=f"of {', '.join(FAMILIES)} (default: all)")
    add("--maps", help="folder of <Family>.npz with `velocity` (n, 70, 70) in m/s, drawn from")
    add("--count", type=int, default=80, help="samples of each family, at most (default: 80)")
    add("--skip", type=int, default=0, help="maps of each draw to leave out (default: 0)")
    add("--shard-size", type=int, default=500, help="samples in a shard (default: 500)")
    add("--shots", type=int, choices=(5, 6), default=5, help="6 makes mirroring exact (default: 5)")
    add("--seed", type=int, default=0, help="of the maps or of the draw (default: 0)")
    add("--as-test", action="store_true", help="write the competition's test layout")
    args = parser.parse_args()
    if args.as_test and args.shots != 5:
        raise InputError("--shots 6: the competition's test records (--as-test) have 5 shots")
    if args.skip and not args.maps:
        raise InputError("--skip: only for --maps, generated maps are never drawn twice")
    for name, least in {"count": 1, "shard_size": 1, "skip": 0, "seed": 0}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')}: expected {least} or more")
    shape = (args.count, args.shard_size, args.seed)
    if args.maps:
        maps = given_maps(args.maps, args.families, *shape, args.skip)
    else:
        maps = generated_maps(args.families or FAMILIES, *shape, args.as_test)
    survey = OFFICIAL.with_six_shots() if args.shots == 6 else OFFICIAL
    if args.as_test:
        write_test(args.out, maps, args.seed, survey)
    else:
        write_training(args.out, maps, survey)


if __name__ == "__main__":
    run_script(main)
