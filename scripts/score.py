"""Score a submission CSV against truth, from files alone.

python scripts/score.py --submission submissions/fwi_demo.csv \\
    --truth data/fwi_demo_test/test_truth.npy --train data/fwi_demo --picture runs/fwi_demo.png
python scripts/score.py --task image --submission submissions/emoji.csv \\
    --truth data/emoji/raw/test_truth.npy --train data/emoji
"""

import argparse
from pathlib import Path

from comp.core.errors import run_script
from comp.tasks import task_class


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
        "--train", type=Path, help="prepared folder; adds the predictors that look at nothing"
    )
    parser.add_argument("--picture", type=Path, help="fwi: worst, median and best sample, a PNG")
    parser.add_argument("--predictions", type=Path, help="picture: full maps, .npy")
    parser.add_argument("--records", type=Path, help="picture: folder with <id>.npy shot records")
    parser.add_argument("--task", default="fwi", help="competition kind (default: fwi)")
    args = vars(parser.parse_args())
    for line in task_class(args.pop("task")).report(**args):
        print(line)


if __name__ == "__main__":
    run_script(main)
