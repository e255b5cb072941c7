"""What `scripts/simulate.py` is asked for: whence the maps, how many, for which survey."""

from argparse import Namespace

from comp.core.errors import InputError
from comp.fwi.derived import KINDS, derived_maps
from comp.fwi.maps import Maps, generated_maps, given_maps
from comp.fwi.predicted import predicted_maps
from comp.fwi.shards import read_index
from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.velocity import FAMILIES

COUNT = 80  # maps of each family where nothing is said
# Options that only some sources take; "" are the generators.
_TAKEN_BY = {
    "skip": ("maps",),
    "kinds": ("from_data",),
    "folds": ("from_data", "from_predictions"),
    "network_fold": ("from_predictions",),
    "as_test": ("", "maps"),
}
_LEAST = {"count": 1, "shard_size": 1, "skip": 0, "seed": 0}


def chosen_maps(args: Namespace) -> tuple[list[Maps], Survey]:
    """The maps to simulate, and the survey to simulate them with.

    Args:
        args: at most one of maps, from_data and from_predictions (paths) says where the maps come
            from, else the generators make them; families, count, shard_size, seed, shots, and
            what `_TAKEN_BY` lists. What was not given is None (as_test, maps_only: False).

    Raises:
        InputError: options that make no sense or not together; as the source of the maps.
    """
    sources = [s for s in ("maps", "from_data", "from_predictions") if getattr(args, s)]
    if len(sources) > 1:
        raise InputError(f"{_flag(sources[1])}: not together with {_flag(sources[0])}")
    source = sources[0] if sources else ""
    for name, takers in _TAKEN_BY.items():
        if getattr(args, name) and source not in takers:
            only = " and ".join(_flag(taker) if taker else "generated maps" for taker in takers)
            raise InputError(f"{_flag(name)}: only for {only}")
    for name, least in _LEAST.items():
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise InputError(f"{_flag(name)}: expected {least} or more")
    if args.maps_only and args.as_test:
        raise InputError("--maps-only: not together with --as-test, whose records are the test")
    if source == "from_data" and args.folds is None:
        raise InputError("--from-data: needs the data's fold file, --folds")
    survey = _survey(args)
    count = COUNT if args.count is None else args.count
    shape = (count, args.shard_size, args.seed)
    if source == "maps":
        return given_maps(args.maps, args.families, *shape, args.skip or 0, survey), survey
    if source == "from_data":
        kinds = args.kinds or KINDS
        return derived_maps(args.from_data, args.folds, args.families, kinds, *shape), survey
    if source == "from_predictions":
        which = (args.network_fold, args.folds, args.families)
        shape = (args.count, args.shard_size, args.seed)
        return predicted_maps(args.from_predictions, *which, *shape, survey), survey
    return generated_maps(args.families or FAMILIES, *shape, args.as_test), survey


def _survey(args: Namespace) -> Survey:
    """The official survey; that of the data for maps derived from data, beside which they train."""
    if args.as_test and args.shots == 6:
        raise InputError("--shots 6: the competition's test records (--as-test) have 5 shots")
    if args.from_data and args.shots is None:
        return read_index(args.from_data)[0]
    return OFFICIAL.with_six_shots() if args.shots == 6 else OFFICIAL


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
