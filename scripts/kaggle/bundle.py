"""Make a folder of finished runs that Kaggle takes as a data set, with the notebook that submits.

python scripts/kaggle/bundle.py --run runs/fwi_demo --owner me --name fwi-demo --tta \\
    --competition waveform-inversion --out bundles/fwi-demo
python scripts/kaggle/bundle.py --check bundles/fwi-demo --test data/fwi_demo_test/test \\
    --sample data/fwi_demo_test/sample_submission.csv

Then `kaggle datasets create -p bundles/fwi-demo` and `kaggle kernels push -p bundles/fwi-demo`.
--check goes the notebook's whole way here, with 32 records.
"""

import argparse
from pathlib import Path

from comp.core.bundle import Choices, make_bundle, sizes
from comp.core.errors import run_script
from comp.kernel import try_bundle
from comp.tasks import load_config, task_class


def main() -> None:
    """Parse; make and list a bundle, or try one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--check", type=Path, metavar="BUNDLE", help="instead: try a bundle")
    add("--test", type=Path, help="--check: test folder, with its --sample submission")
    add("--sample", type=Path, help=argparse.SUPPRESS)
    add("--run", nargs="+", type=Path, help="run folders, runs/<name>")
    add("--out", type=Path, help="folder to write")
    add("--owner", help="user name at Kaggle")
    add("--name", help="of the data set, in its address")
    add("--competition", help="its name in the address, as in waveform-inversion")
    add("--half", action="store_true", help="weights in half precision, half the size")
    add("--weights", nargs="+", type=float, help="one for each fold of each run (default: mean)")
    add("--recipe", type=Path, help="of scripts/recipe.py, with a file a run, instead of weights")
    add("--hours", type=float, help="in which all runs have to predict")
    add("--rule", type=Path, help="image: from probabilities to labels, JSON")
    add("--tta", action="store_true", help="average over the task's views")
    add("--batch-size", type=int, default=64, help="samples a pass (default: 64)")
    add("--wheels", nargs="*", help="name==version of wheels to bring (default: the task's)")
    add("--wheels-from", type=Path, help="folder that has them (default: download)")
    add("--licence", default="unknown", help="of the data set (default: unknown)")
    args = vars(parser.parse_args())
    check, test, sample, runs, out = map(args.pop, ("check", "test", "sample", "run", "out"))
    if not ((check and test and sample) or (runs and out and args["owner"] and args["name"])):
        parser.error("takes --run --out --owner --name, or --check --test --sample")
    if check:
        return try_bundle(check, test, sample)
    how = ["--batch-size", str(args.pop("batch_size")), *["--tta"] * args.pop("tta")]
    given = [(run, load_config(run / "config.yaml")) for run in runs]
    make_bundle(out, given, task_class(given[0][1].task), Choices(**args, predict=how))
    print(*sizes(out), sep="\n")


if __name__ == "__main__":
    run_script(main)
