"""Draw velocity maps, records, misfits and errors from files, as PNG.

python scripts/plot.py maps --stage start=oof.npy refined=refined.npy --truth truth.npy --out a.png
python scripts/plot.py gathers --record test/000039dca2.npy --velocity refined.npy --out b.png
python scripts/plot.py curves --misfit refined.misfit.npy --out c.png
python scripts/plot.py bars --truth truth.npy --result start=oof.npy refined=refined.npy --out d.png

The first shows the worst, the median and the best sample, or those named with --ids. The second
simulates the map by the exact scheme and shows what it leaves unexplained.
"""

import argparse

from comp.core.errors import run_script
from comp.fwi.pictures import draw_bars, draw_curves, draw_maps, draw_residual, named_files


def main() -> None:
    """Parse, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    maps = kinds.add_parser("maps", help="velocity at several stages, on one scale")
    maps.add_argument("--stage", nargs="+", required=True, help="name=predictions.npy")
    maps.add_argument("--truth", help="prediction file of the true maps")
    maps.add_argument("--ids", nargs="+", help="samples (default: worst, median, best)")
    gathers = kinds.add_parser("gathers", help="observed, modelled, residual")
    gathers.add_argument("--record", required=True, help="<id>.npy, (5, 1000, 70)")
    gathers.add_argument("--velocity", required=True, help="prediction file, or one map .npy")
    gathers.add_argument("--id", help="of the prediction file (default: the record's)")
    curves = kinds.add_parser("curves", help="misfit against evaluations, by family")
    curves.add_argument("--misfit", required=True, help="<stem>.misfit.npy of scripts/refine.py")
    bars = kinds.add_parser("bars", help="mean error by family, with its spread")
    bars.add_argument("--truth", required=True, help="prediction file of the true maps")
    bars.add_argument("--result", nargs="+", required=True, help="name=predictions.npy")
    for kind in (maps, gathers, curves, bars):
        kind.add_argument("--out", required=True, help="PNG to write")
    args = parser.parse_args()
    if args.kind == "maps":
        draw_maps(args.out, named_files(args.stage), args.truth, args.ids)
    elif args.kind == "gathers":
        draw_residual(args.out, args.record, args.velocity, args.id)
    elif args.kind == "curves":
        draw_curves(args.out, args.misfit)
    else:
        for name, mae in draw_bars(args.out, args.truth, named_files(args.result)).items():
            print(f"{name}: MAE {mae:.2f} m/s")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run_script(main)
