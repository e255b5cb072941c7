"""Score a submission CSV of the waveform-inversion competition against truth, from files alone.

python scripts/score.py --submission submissions/fwi_demo.csv \\
    --truth data/fwi_demo_test/test_truth.npy --train data/fwi_demo --picture fwi_demo.png
"""

import argparse
from pathlib import Path

from comp.core.errors import run_script
from comp.fwi.metrics import fit_baselines
from comp.fwi.scoring import draw_extremes, family_table, score_submission
from comp.fwi.shots import ShotStore
from comp.fwi.submission import LAYOUT


def main() -> None:
    """Parse, score, print the table, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--submission", required=True, type=Path, help="CSV, rows in any order")
    parser.add_argument(
        "--truth", required=True, type=Path, help=".npy with its id table, or a submission CSV"
    )
    parser.add_argument(
        "--train", type=Path, help="prepared folder; adds its best constant and mean map"
    )
    parser.add_argument("--picture", type=Path, help="PNG of the worst, median and best sample")
    parser.add_argument("--predictions", type=Path, help="picture: full maps, .npy")
    parser.add_argument("--records", type=Path, help="picture: folder with <id>.npy shot records")
    args = parser.parse_args()
    score = score_submission(args.submission, args.truth, LAYOUT)
    baselines = None if args.train is None else fit_baselines(ShotStore(args.train))
    print("MAE in m/s over all rows and the scored columns")
    print(family_table(score, baselines, LAYOUT).to_string(float_format="%.2f"))
    if args.picture is not None:
        draw_extremes(args.picture, score, LAYOUT, args.predictions, args.records)
        print(f"wrote {args.picture}")
    print(f"score of {args.submission}: {score.mae:.4f} m/s")


if __name__ == "__main__":
    run_script(main)
