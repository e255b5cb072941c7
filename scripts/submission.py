"""From a config to a checked submission: folds, training, rule, prediction, ensemble, CSV.

python scripts/submission.py --config configs/fwi/demo.yaml --test data/fwi_demo_test/test \\
    --sample data/fwi_demo_test/sample_submission.csv

Each step is a command of its own, which is printed. Run again, it goes on where it stopped: a step
whose files are there, newer than what they are made of, is skipped, and it says so.
"""

import argparse
from pathlib import Path

from comp.core.errors import run_script
from comp.core.steps import Plan, run_steps
from comp.tasks import load_config, task_class


def main() -> None:
    """Parse, load the config, run the steps that are due."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--test", required=True, type=Path, help="test folder")
    parser.add_argument("--sample", required=True, type=Path, help="sample submission")
    parser.add_argument("--out", type=Path, help="the CSV (default: submissions/<name>.csv)")
    parser.add_argument("--folds", type=int, default=5, help="to cut if none are (default: 5)")
    parser.add_argument("overrides", nargs="*", help="dotted settings, as in name=mine")
    args = parser.parse_args()
    config = load_config(args.config, args.overrides)
    scripts = Path(__file__).resolve().parent
    if scripts.is_relative_to(Path.cwd()):
        scripts = scripts.relative_to(Path.cwd())
    out = args.out or Path("submissions") / f"{config.name}.csv"
    train = ("--config", args.config, *args.overrides)
    plan = Plan(config, train, scripts, args.test, args.sample, out, args.folds)
    run_steps(plan, task_class(config.task))
    print(f"\n{out} is ready")


if __name__ == "__main__":
    run_script(main)
