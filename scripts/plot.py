"""Draw pictures from files, as PNG.

Waveform inversion:
python scripts/plot.py maps --stage start=oof.npy refined=refined.npy --truth truth.npy --out a.png
python scripts/plot.py gathers --record test/000039dca2.npy --velocity refined.npy --out b.png
python scripts/plot.py curves --misfit refined.misfit.npy --out c.png
python scripts/plot.py bars --truth truth.npy --result start=oof.npy refined=refined.npy --out d.png

Images:
python scripts/plot.py batch --config configs/image/plant_pathology.yaml --out e.png
python scripts/plot.py classes --data data/plants --oof oof.npy --out f.png
python scripts/plot.py precision --data data/plants --oof oof.npy --out g.png
python scripts/plot.py sweep --data data/plants --oof oof.npy --out h.png
python scripts/plot.py worst --data data/plants --oof oof.npy --out i.png
"""

import argparse
import sys

from comp.core.errors import run_script
from comp.core.figures import Picture
from comp.image.pictures import PICTURES as IMAGE_PICTURES


def main() -> None:
    """Parse, draw, print what there is to say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    pictures = known_pictures(sys.argv[1:2])
    for name, picture in pictures.items():
        kind = kinds.add_parser(name, help=picture.about, description=picture.about)
        for option, how in picture.options.items():
            kind.add_argument(option, **how)
        kind.add_argument("--out", required=True, help="PNG to write")
    args = vars(parser.parse_args())
    for line in pictures[args.pop("kind")].draw(**args) or ():
        print(line)
    print(f"wrote {args['out']}")


def known_pictures(asked: list[str]) -> dict[str, Picture]:
    """The pictures by kind; those of images alone where one is asked for."""
    if IMAGE_PICTURES.keys() & asked:
        return IMAGE_PICTURES
    # Imported on demand: pictures of images need none of the wave solver's packages.
    from comp.fwi.pictures import PICTURES as FWI_PICTURES

    return FWI_PICTURES | IMAGE_PICTURES


if __name__ == "__main__":
    run_script(main)
