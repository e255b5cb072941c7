"""Turn a competition's raw files into a prepared folder.

python scripts/prepare.py --raw train_samples --out data/fwi
python scripts/prepare.py --task image --competition imet2019 --raw imet --out data/imet
python scripts/prepare.py emoji --raw npm_archives --out data/emoji
python scripts/prepare.py graphemes --fonts NotoSansBengali-*.ttf --out data/graphemes

Waveform inversion: started again after a kill it goes on; --verify checks the shards' checksums.
The last two make image sets that need no account, into OUT/raw, and prepare them.
"""

import argparse
from pathlib import Path

from comp.core.errors import run_script
from comp.fwi.prepare import prepare, verify
from comp.image.competitions import competition
from comp.image.emoji import write_emoji
from comp.image.graphemes import write_graphemes
from comp.image.prepare import prepare_images

IMAGE = {"competition", "raw"}
TAKES = {"image": (IMAGE, IMAGE | {"size"}), "emoji": ({"raw"},), "graphemes": ({"fonts"},)}


def main() -> None:
    """Parse, make a set if that is asked for, prepare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("made", nargs="?", choices=("emoji", "graphemes"), help="a set to make")
    parser.add_argument("--task", default="fwi", choices=("fwi", "image"), help="default: fwi")
    parser.add_argument("--competition", metavar="NAME", help="image: which, or a YAML file")
    parser.add_argument("--raw", metavar="FOLDER", help="raw files; for emoji the npm archives")
    parser.add_argument("--fonts", nargs="+", metavar="FILE", help="graphemes: Bengali fonts")
    parser.add_argument("--size", type=int, help="image: keep copies with this short side, pixels")
    parser.add_argument("--verify", action="store_true", default=None, help="fwi: instead of --raw")
    parser.add_argument("--out", required=True, type=Path, help="the prepared folder")
    args = parser.parse_args()
    kind, out = args.made or args.task, args.out
    given = {key for key, value in vars(args).items() if value is not None}
    takes = TAKES.get(kind, ({"raw"}, {"verify"}))
    if given - {"made", "task", "out"} not in takes:
        ways = " or ".join(" ".join(f"--{key}" for key in sorted(way)) for way in takes)
        parser.error(f"{kind} takes {ways}")
    if args.verify:
        verify(out)
        print(f"{out}: every file as it was written")
    elif kind == "fwi":
        prepare(args.raw, out)
    elif kind == "image":
        prepare_images(args.raw, out, competition(args.competition), args.size)
    elif kind == "emoji":
        prepare_images(write_emoji(args.raw, out / "raw"), out, competition("emoji"))
    else:
        prepare_images(write_graphemes(args.fonts, out / "raw"), out, competition("graphemes"))


if __name__ == "__main__":
    run_script(main)
