"""Simulate shot records of velocity maps with the exact forward model, as training or test data.

python scripts/simulate.py --families FlatVel_A CurveVel_A --count 80 --out data/demo
python scripts/simulate.py --families FlatVel_A CurveVel_A --count 20 --as-test --out data/demo_test
accelerate launch scripts/simulate.py --maps maps --count 5000 --out data/fwi   # on every GPU
python scripts/simulate.py --from-data data/fwi --folds data/fwi/folds.csv --out data/derived
python scripts/simulate.py --from-predictions runs/mine/fold_0/predictions/test.npy \\
    --network-fold 0 --folds data/fwi/folds.csv --out data/pseudo_0

The first writes a prepared folder; the second test/<id>.npy as the competition has them, their
truth and a sample submission. Generated test data share no map with training data, whatever their
seeds; with --maps, give --skip (the training data's --count) to the test data. The others write
prepared folders for `data.extra`: their samples never validate, nor train while a fold validates
from which they, or the network that predicted them, have learned. Killed and started again, all go
on where they stopped.
"""

import argparse

from comp.core.errors import InputError, run_script
from comp.core.share import Share
from comp.fwi.simulated import write_test, write_training
from comp.fwi.sources import chosen_maps
from comp.fwi.velocity import FAMILIES


def main() -> None:
    """Parse, choose the maps, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", required=True, help="folder to write; finished if an earlier run was killed")
    add("--maps", help="folder of <Family>.npz with `velocity` (n, 70, 70) in m/s, drawn from")
    add("--from-data", help="prepared folder; blends, crops, warps, mirrors its maps fold by fold")
    add("--from-predictions", help="prediction file .npy; simulates its maps")
    add("--families", nargs="+", help=f"of {', '.join(FAMILIES)} (default: all)")
    add("--count", type=int, help="maps of each family, at most (default: 80; predictions: all)")
    add("--skip", type=int, help="--maps: how many of each draw to leave out (default: 0)")
    add("--kinds", nargs="+", help="--from-data: of blend crop warp mirror (default: all)")
    add("--folds", help="fold file: of --from-data, or that --network-fold speaks of")
    add("--network-fold", help="--from-predictions: fold its network left out, all or ignore")
    add("--shard-size", type=int, default=500, help="samples in a shard (default: 500)")
    add("--shots", type=int, choices=(5, 6), help="6 makes mirroring exact (default: 5, as data)")
    add("--seed", type=int, default=0, help="of the maps or of the draw (default: 0)")
    add("--as-test", action="store_true", help="write the competition's test layout")
    add("--maps-only", action="store_true", help="no records: training simulates them as it goes")
    args = parser.parse_args()
    maps, survey = chosen_maps(args)
    share = Share.of_launcher()
    if share.count > 1 and args.as_test:
        raise InputError(f"--as-test: started in {share.count} processes, expected one")
    if args.as_test:
        write_test(args.out, maps, args.seed, survey)
    else:
        write_training(args.out, maps, survey, share, records=not args.maps_only)


if __name__ == "__main__":
    run_script(main)
