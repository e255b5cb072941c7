"""The kernels that hold a shot on chip: their source emulated on a CPU, themselves on a GPU."""

import ctypes
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from waves import relative, rough_maps

from comp.fwi.survey import OFFICIAL, Survey
from comp.fwi.velocity import FAMILIES, generate
from comp.fwi.wave import launcher, onchip, reach, simulate, sponge, sponge_cpu, sponge_cuda
from comp.fwi.wave.scheme import discretise

# Quadrants of unequal sizes, several row groups and column blocks; waves go round the edges.
SMALL = Survey(
    ny=14,
    nx=30,
    nt=90,
    pad=21,
    source_columns=(0, 13, 29),
    source_row=2,
    receiver_row=2,
    receiver_columns=(3, 4, 5, 16, 29),
    sponge_reflection=100.0,
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def maps(count: int, survey: Survey) -> torch.Tensor:
    """(count, ny, nx) float32 rough maps."""
    return rough_maps(count, survey, dtype=torch.float32)


def compiled(folder: Path, source: Path, name: str, definitions: dict[str, str]) -> ctypes.CDLL:
    """A kernel of a source behind the emulation, compiled for these definitions."""
    here = Path(__file__).parent
    library = folder / (f"{name}_{'_'.join(definitions.values())}.so".replace("/", ":"))
    if not library.exists():
        wrapped = folder / "emulated.cpp"
        wrapped.write_text('#include "emulated.h"\n')
        options = [f"-D{key}={value}" for key, value in definitions.items()]
        options += [] if name == "run" else [f"-D{name.upper()}"]
        include = [f"-I{here}", f"-I{source.parent}"]
        command = ["g++", "-O2", "-std=c++17", "-shared", "-fPIC", "-w", *options, *include]
        subprocess.run([*command, str(wrapped), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class EmulatedLaunch:
    """Stands in for `nvrtc.Launch`: runs the library at once."""

    def __init__(self, library, blocks, threads, arguments, shared) -> None:
        numbers = [a for a in arguments if isinstance(a, int)]
        tensors = arguments[: len(arguments) - len(numbers)]
        pointers = [None if a is None else a.data_ptr() for a in tensors]
        pointers = (ctypes.c_void_p * len(pointers))(*pointers)
        numbers = (ctypes.c_int * len(numbers))(*numbers)
        library.launch.restype = ctypes.c_bool
        self._call = lambda: library.launch(pointers, numbers, blocks[0], threads, shared)

    def __call__(self) -> None:
        assert self._call(), "the kernel hangs"


@pytest.fixture
def emulated(monkeypatch, tmp_path_factory):
    """`onchip` on the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.getbasetemp() / "onchip"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(
        launcher.nvrtc, "load", lambda source, name, d: compiled(folder, source, name, d)
    )
    monkeypatch.setattr(launcher.nvrtc, "Launch", EmulatedLaunch)
    monkeypatch.setattr(launcher.nvrtc, "active_clusters", lambda *_: 2)
    # Turns of fewer threads take less time.
    monkeypatch.setattr(launcher, "WARPS", dict.fromkeys(launcher.KINDS, 4))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(launcher, "free_memory", lambda device: 1e12)


def exact(velocity: torch.Tensor, survey: Survey):
    """Scheme, record and what is saved in float64."""
    scheme = discretise(velocity.double(), survey)
    return scheme, *sponge_cpu.run(scheme, keep=True)


def exact_record(velocity: torch.Tensor, survey: Survey):
    """The record in float64."""
    return sponge_cpu.run(discretise(velocity.double(), survey), keep=False)[0]


@pytest.mark.parametrize(
    "survey",
    [
        SMALL,
        replace(
            SMALL,
            ny=12,
            nx=18,
            source_row=0,
            receiver_row=0,
            source_columns=(5, 16),
            receiver_columns=(0, 16),
        ),
        replace(SMALL, nt=20),
    ],
)
def test_records(emulated, survey):
    assert_right(survey)


def test_records_with_all_warps(emulated, monkeypatch):
    """Most have nothing to do on so small a grid."""
    monkeypatch.setattr(launcher, "WARPS", dict.fromkeys(launcher.KINDS, 16))
    assert_right(replace(SMALL, nt=30, receiver_columns=(16, 3, 4)))


def assert_right(survey):
    assert onchip.survey_fits(survey)
    velocity = maps(2, survey)
    record, _ = onchip.run(discretise(velocity, survey), keep=False)
    assert record.shape == (2, *survey.record_shape)
    assert relative(record, exact_record(velocity, survey)) < 2e-6


@pytest.mark.parametrize("kind", ["fast below", "fast above", "thin layer", "blocks", "slow"])
def test_records_of_harsh_maps(emulated, monkeypatch, kind):
    """The official survey, one shot: what is left out must not be heard whatever the contrasts."""
    monkeypatch.setattr(launcher, "WARPS", dict.fromkeys(launcher.KINDS, 5))
    velocity = torch.full((1, 70, 70), 1500.0)
    if kind == "fast below":
        velocity[:, 40:] = 4500.0
    elif kind == "fast above":
        velocity[:, :10] = 4500.0
    elif kind == "thin layer":
        velocity[:, 20:22] = 4500.0
    elif kind == "blocks":
        drawn = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0))
        velocity += 3000 * drawn.repeat_interleave(10, 1).repeat_interleave(10, 2)
    survey = replace(OFFICIAL, source_columns=(10,))
    record, _ = onchip.run(discretise(velocity, survey), keep=False)
    assert relative(record, exact_record(velocity, survey)) < 2e-5


def test_the_sources_compile_for_a_chip_that_has_clusters(monkeypatch):
    """Without such a chip, and without any: NVRTC needs none."""
    pytest.importorskip("cuda.bindings.nvrtc")
    loaded = []
    monkeypatch.setattr(launcher.nvrtc, "load", lambda source, _, d: loaded.append((source, d)))
    monkeypatch.setattr(launcher.nvrtc, "Launch", lambda *_: lambda: None)
    launches = launcher.Launcher(discretise(maps(1, OFFICIAL), OFFICIAL))
    for kind in launcher.KINDS:
        launches._function(kind)
    assert {source for source, _ in loaded} == {launcher.SOURCE, reach.SOURCE}
    for source, definitions in loaded:
        try:
            code = launcher.nvrtc.compile_source(source, (9, 0), tuple(definitions.items()))
        except RuntimeError as error:
            if "dlopen" in str(error) or "load" in str(error):
                pytest.skip("no NVRTC library")
            raise
        assert code.startswith(b"\x7fELF")


def test_arrivals_follow_the_fastest_way(emulated):
    """In one velocity: distance. With a fast row: along it. The shorter way round the grid."""
    survey = replace(SMALL, sponge_reflection=100.0)
    velocity = torch.full((2, 14, 30), 2000.0)
    velocity[1, 6:] = 4000.0
    scheme = discretise(velocity, survey)
    found = reach.arrivals(scheme, scheme.sources[:, 1].int())
    assert found.shape == (2, 4, 28, 36)
    courant = 2000.0 * survey.dt / survey.dx
    down, right = torch.meshgrid(torch.arange(28.0), torch.arange(36.0), indexing="ij")
    across = (right - (21 + 13) // 2).abs()
    cells = 2 * torch.hypot(torch.minimum(down, 28 - down), torch.minimum(across, 36 - across))
    torch.testing.assert_close(found[0, 1], cells / courant, rtol=0.05, atol=2 / courant)
    # Two coarse rows down, along the third, which is fast.
    assert 14 / courant < float(found[1, 0, 2, 10 + 14]) < 20 / courant
    assert (found[:, 3, 0, 12:25] == 0).all()
    assert (found[0, 3] <= found[0, 1:3].amin(0) + 1e-3).all()


def test_the_cut_gives_both_sides_as_much_to_do(emulated, monkeypatch):
    """Waves are fast below, so a cut at the sources' row would give the lower quadrants more."""
    survey = replace(SMALL, ny=40, nt=120, pad=20)
    velocity = torch.full((1, 40, 30), 1500.0)
    velocity[:, 8:] = 4500.0
    scheme = discretise(velocity, survey)

    def imbalance():
        worked_on = launcher.Launcher(scheme).tables[2].sum((2, 3)).double()  # (shots, quadrants)
        above, below = worked_on[:, 2:].sum(1), worked_on[:, :2].sum(1)
        return ((below - above) / (below + above)).abs().max()

    balanced = imbalance()
    monkeypatch.setattr(
        launcher, "cut_rows", lambda s, *_: torch.full((survey.shots,), 22, dtype=torch.int32)
    )
    assert balanced < 0.5 * imbalance()


def test_nothing_to_simulate(emulated):
    scheme = discretise(maps(0, SMALL), SMALL)
    record, saved = onchip.run(scheme, keep=True)
    assert record.shape == (0, *SMALL.record_shape)
    assert len(onchip.gradients(scheme, saved, record).alpha) == 0


@pytest.mark.parametrize("room", [True, False])
def test_gradients(emulated, monkeypatch, room):
    monkeypatch.setattr(launcher, "free_memory", lambda _: 1e12 if room else 1.5e7)
    velocity = maps(2, SMALL)
    scheme = discretise(velocity, SMALL)
    weights = torch.randn(2, *SMALL.record_shape, generator=torch.Generator().manual_seed(1))
    record, saved = onchip.run(scheme, keep=True)
    assert (len(saved) > launcher.TABLES) == room
    assert torch.equal(record, onchip.run(scheme, keep=False)[0])
    found = onchip.gradients(scheme, saved, weights)
    reference, _, kept = exact(velocity, SMALL)
    expected = sponge_cpu.gradients(reference, kept, weights.double())
    assert relative(found.alpha, expected.alpha) < 1e-3
    assert relative(found.amplitude, expected.amplitude) < 2e-6
    along = [(part.kappa * reference.kappa).sum((1, 2)) for part in (found, expected)]
    assert relative(*along) < 1e-3


@pytest.mark.parametrize("every", [1, 7])
def test_fields(emulated, every):
    """Everywhere, heard or not: also where a slow cell hears nothing in time."""
    velocity = maps(1, SMALL)
    found = onchip.snapshots(discretise(velocity, SMALL), every)
    scheme = discretise(velocity.double(), SMALL)
    expected = sponge_cpu.snapshots(scheme, every)
    assert found.shape == expected.shape == (SMALL.nt // every, SMALL.shots, 56, 72)
    off = (found - expected).flatten(1).norm(dim=1)
    assert (off < 2e-6 * expected.flatten(1).norm(dim=1).max()).all()


@pytest.mark.parametrize(
    ("device", "survey", "reason"),
    [
        ({}, OFFICIAL, ""),
        ({"name": "Tesla T4", "major": 7, "minor": 5}, OFFICIAL, "Tesla T4 has no clusters"),
        ({"shared_memory_per_block_optin": 101376}, OFFICIAL, "has 99 KB of shared memory a block"),
        ({}, replace(OFFICIAL, receiver_row=2), "unequal rows"),
        ({}, replace(OFFICIAL, nx=71), "odd sides"),
        ({}, replace(OFFICIAL, ny=90), "size"),
        ({}, replace(OFFICIAL, dt=5e-4), "short steps"),
    ],
)
def test_what_keeps_shots_from_the_chip(monkeypatch, device, survey, reason):
    hopper = {"name": "H200", "major": 9, "minor": 0, "shared_memory_per_block_optin": 232448}
    properties = SimpleNamespace(**(hopper | device))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    onchip.why_not.cache_clear()
    found = onchip.why_not(torch.device("cuda", 0), survey)
    onchip.why_not.cache_clear()
    assert reason in found and bool(reason) == bool(found)


@pytest.fixture
def families():
    """(20, 70, 70) generated maps on the GPU, two of every family."""
    drawn = [
        torch.from_numpy(generate(family, 2, seed=[4, i])) for i, family in enumerate(FAMILIES)
    ]
    return torch.cat(drawn).cuda()


@gpu
def test_gpu_records_of_every_family(families):
    assert sponge.backend(families, OFFICIAL) is onchip
    found = simulate(families)
    for record, velocity in zip(found, families):
        scheme = discretise(velocity[None].double(), OFFICIAL)
        expected = sponge_cuda.run(scheme, keep=False)[0][0]
        assert relative(record.cpu(), expected.cpu()) < 2e-5
        assert torch.equal(simulate(velocity[None])[0], record)


@gpu
def test_gpu_gradients_of_every_family(families):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, *OFFICIAL.record_shape, generator=generator).cuda()

    def gradient(velocity):
        velocity = velocity.detach().requires_grad_()
        record = simulate(velocity)
        return torch.autograd.grad(record, velocity, weights.to(record).expand_as(record))[0]

    together = gradient(families)
    for found, velocity in zip(together, families):
        expected = gradient(velocity[None].double())[0]
        assert relative(found.cpu(), expected.cpu()) < 1e-3
    # The sum over repeated edges is torch's, in an order that may depend on the batch.
    torch.testing.assert_close(gradient(families[3:5]), together[3:5])
    assert torch.equal(gradient(families), together)


@gpu
def test_gpu_fields(families):
    """Of shots in every column, as derivatives of records take them."""
    survey = replace(OFFICIAL, source_columns=OFFICIAL.receiver_columns)
    scheme = discretise(families[3:4], survey)
    assert sponge.backend(scheme.alpha, survey) is onchip
    found = onchip.snapshots(scheme, 20)
    expected = sponge_cuda.snapshots(discretise(families[3:4].double(), survey), 20)
    off = (found - expected).flatten(2).norm(dim=2)
    assert (off < 1e-5 * expected.flatten(2).norm(dim=2).amax(0)).all()


@gpu
def test_gpu_takes_what_does_not_fit_another_way(families):
    survey = replace(OFFICIAL, nt=50, receiver_row=2)
    assert sponge.backend(families, survey) is sponge_cuda
    assert sponge.backend(families.double(), OFFICIAL) is sponge_cuda
    expected = simulate(families[:2].double(), survey)
    assert relative(simulate(families[:2], survey).cpu(), expected.cpu()) < 2e-5
