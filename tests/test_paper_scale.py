"""Every value of scale `paper` that a paper states, typed here from its text (or from its authors' release), by data set."""

from pathlib import Path

import pytest

from genae.experiment import load

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FADE = 1.2  # millions of images, at the beginning of a phase (released)
BATCHES = {4: 256, 8: 256, 16: 256, 32: 128, 64: 64, 128: 28, 256: 32}  # two GPUs (released)

# Deep Automodulators (2020), A.1: "until 32x32 ... 0.0005 and thereafter 0.001".
RATES = {4: 5e-4, 8: 5e-4, 16: 5e-4, 32: 5e-4, 64: 1e-3, 128: 1e-3, 256: 1e-3}

# A.1: "2.0 for the first two resolution steps, and thereafter fixed to 0.5, except for CelebA-HQ ... 0.2 at 128x128 and 0.4 at
# 256x256, and for LSUN Bedrooms ... 0.2 from 128x128 upwards".
MARGINS = {
    "celeba-hq": {4: 2.0, 8: 2.0, 16: 0.5, 32: 0.5, 64: 0.5, 128: 0.2, 256: 0.4},
    "ffhq": {4: 2.0, 8: 2.0, 16: 0.5, 32: 0.5, 64: 0.5, 128: 0.5, 256: 0.5},
    "lsun-bedrooms": {4: 2.0, 8: 2.0, 16: 0.5, 32: 0.5, 64: 0.5, 128: 0.2, 256: 0.2},
    "lsun-cars": {4: 2.0, 8: 2.0, 16: 0.5, 32: 0.5, 64: 0.5, 128: 0.5, 256: 0.5},
}

# A.1: 2.4M images a phase until 64x64, which takes 10.4M; 128x128 takes 10.6M for FFHQ and 7.5M for the others. To one decimal.
MILLIONS = {
    "celeba-hq": {4: 2.4, 8: 2.4, 16: 2.4, 32: 2.4, 64: 10.4, 128: 7.5},
    "ffhq": {4: 2.4, 8: 2.4, 16: 2.4, 32: 2.4, 64: 10.4, 128: 10.6},
    "lsun-bedrooms": {4: 2.4, 8: 2.4, 16: 2.4, 32: 2.4, 64: 10.4, 128: 7.5},
    "lsun-cars": {4: 2.4, 8: 2.4, 16: 2.4, 32: 2.4, 64: 10.4, 128: 7.5},
}

# Balanced PIONEER as released: (first image in millions, resolution, learning rate up to 32x32, margin in the papers' units).
# FFHQ by A.1 of the 2020 paper: "64x64 ... up to 20.04M samples and the latter to 27.86M", "256x256 ... up to 35.4M".
PIONEER = {
    "celeba-hq": [
        (0.0, 4, 0.5),
        (2.4, 8, 0.5),
        (4.8, 16, 0.5),
        (7.2, 32, 0.5),
        (9.6, 64, 0.0),
        (13.0, 64, 0.2),
        (16.52, 128, 0.2),
        (20.04, 256, 0.4),
    ],
    "ffhq": [
        (0.0, 4, 0.5),
        (2.4, 8, 0.5),
        (4.8, 16, 0.5),
        (7.2, 32, 0.5),
        (9.6, 64, 0.0),
        (13.0, 64, 0.2),
        (20.04, 128, 0.2),
        (27.86, 256, 0.4),
    ],
    "lsun-bedrooms": [
        (0.0, 4, 0.0),
        (2.4, 8, 0.0),
        (4.8, 16, 0.0),
        (7.2, 32, 0.0),
        (9.6, 64, 0.0),
        (12.36, 64, 0.6),
        (15.4, 128, 0.6),
        (21.4, 256, 0.4),
    ],
}
PIONEER["lsun-cars"] = PIONEER["lsun-bedrooms"]
PIONEER_RATES = {"celeba-hq": RATES, "ffhq": RATES}  # of LSUN: 0.001 throughout

AUTOMODULATORS = [  # table, row, data set, resolution, millions of images
    ("automodulator-2020/table1", "architecture", "celeba-hq", 256, 35.0),  # "256x256, 35M steps"
    ("automodulator-2020/table1", "layer", "celeba-hq", 256, 35.0),
    ("automodulator-2020/table1", "layer-robust", "celeba-hq", 256, 35.0),
    ("automodulator-2020/table2a", "automodulator", "celeba-hq", 128, 27.5),  # the 128x128 phase ends there (released)
    ("automodulator-2020/table2b", "automodulator", "celeba-hq", 256, 35.0),
    ("automodulator-2020/table2b", "automodulator", "ffhq", 256, None),  # "7-16M" in the last phase
    ("automodulator-2020/table2b", "automodulator", "lsun-bedrooms", 256, None),
    ("automodulator-2020/table2b", "automodulator", "lsun-cars", 256, None),
    ("automodulator-2019/table1", "automodulator", "celeba-hq", 128, 27.5),
    ("automodulator-2019/table1", "automodulator", "lsun-bedrooms", 128, 27.5),
]


def run_of(table: str, row: str, data: str):
    (run,) = [
        run
        for run in load(EXPERIMENTS / f"{table}.yaml", scale="paper").runs
        if (run.row, run.data_name, run.seed) == (row, data, 0)
    ]
    return run


@pytest.mark.parametrize(("table", "row", "data", "resolution", "millions"), AUTOMODULATORS)
def test_an_automodulator_is_trained_as_appendix_a1_says(table, row, data, resolution, millions):
    run = run_of(table, row, data)
    (stage,) = run.stages
    phases = stage.schedule.phases
    assert run.data == {"name": data, "resolution": resolution}
    assert run.flip
    assert [phase.resolution for phase in phases] == [r for r in MARGINS[data] if r <= resolution]
    for phase in phases:
        assert phase.margin == MARGINS[data][phase.resolution]
        assert phase.learning_rate == RATES[phase.resolution]
        assert phase.batch_size == BATCHES[phase.resolution]
        assert phase.fade_kimg == 1000 * FADE
        if phase.resolution < resolution:
            assert round(phase.kimg / 1000, 1) == MILLIONS[data][phase.resolution]
    if millions is not None:
        assert stage.schedule.total_kimg == 1000 * millions
    else:
        assert 7000 <= stage.schedule.total_kimg - stage.schedule.starts[-1] / 1000 <= 16000
    assert stage.optimizer["betas"] == [0.0, 0.99]
    assert stage.optimizer["eps"] == 1e-8
    assert stage.average["parts"] == ["decoder"]  # "running average of generator weights"
    assert run.model["latent_dim"] == 512
    assert run.model["latent"] == "sphere"
    assert stage.objective["mixed_share_encoder"] == stage.objective["mixed_share_decoder"] == 0.25  # Eq. 6, "3:4"


def test_table_1_differs_in_the_loss_terms_that_it_names_and_nothing_else():
    runs = {row: run_of("automodulator-2020/table1", row, "celeba-hq") for row in ("architecture", "layer", "layer-robust")}
    objectives = {row: run.stages[0].objective for row, run in runs.items()}
    assert objectives["architecture"] == objectives["layer"] | {"layer_weight": 0.0}
    assert objectives["layer"] == objectives["layer-robust"] | {"reconstruction": "l1"}
    assert objectives["layer-robust"]["reconstruction"] == "robust"
    assert len({str(run.model) for run in runs.values()}) == len({str(run.stages[0].schedule) for run in runs.values()}) == 1


@pytest.mark.parametrize(
    ("table", "data", "resolution", "millions"),
    [
        ("automodulator-2020/table2a", "celeba-hq", 128, 20.04),
        ("automodulator-2020/table2b", "celeba-hq", 256, None),
        ("automodulator-2020/table2b", "ffhq", 256, 35.4),
        ("automodulator-2020/table2b", "lsun-bedrooms", 256, None),
        ("automodulator-2020/table2b", "lsun-cars", 256, None),
        ("automodulator-2019/table1", "celeba-hq", 128, 20.04),
        ("automodulator-2019/table1", "lsun-bedrooms", 128, 21.4),
    ],
)
def test_balanced_pioneer_is_trained_by_its_released_schedule(table, data, resolution, millions):
    (stage,) = run_of(table, "b-pioneer", data).stages
    expected = [entry for entry in PIONEER[data] if entry[1] <= resolution]
    starts = [start / 1e6 for start in stage.schedule.starts]
    assert starts == [entry[0] for entry in expected]
    for phase, (_, size, margin) in zip(stage.schedule.phases, expected, strict=True):
        assert (phase.resolution, phase.margin) == (size, margin)
        assert phase.learning_rate == PIONEER_RATES.get(data, {}).get(size, 1e-3)
        assert phase.batch_size == BATCHES[size]
    if millions is not None:
        assert stage.schedule.total_kimg == pytest.approx(1000 * millions)
    assert stage.optimizer["betas"] == [0.0, 0.9]


@pytest.mark.parametrize(
    ("row", "weight", "rates"),
    [
        # A.1: "For all VAE baselines the weight for KLD loss was 0.005"; 0.0001 and 0.0005.  WAE-MMD: 4 and 2; 0.0002.
        ("vae-classic", ("kl_weight", 0.005), {"encoder": 1e-4, "decoder": 5e-4}),
        ("vae-adain", ("kl_weight", 0.005), {"encoder": 1e-4, "decoder": 5e-4}),
        ("wae-classic", ("mmd_weight", 2.0), 2e-4),
        ("wae-adain", ("mmd_weight", 4.0), 2e-4),
    ],
)
def test_the_vae_and_wae_rows_have_the_weights_and_learning_rates_of_appendix_a1(row, weight, rates):
    run = run_of("automodulator-2020/table2a", row, "celeba-hq")
    (stage,) = run.stages
    assert stage.objective[weight[0]] == weight[1]
    assert all(phase.learning_rate == rates for phase in stage.schedule.phases)
    assert run.model["name"] == row
    assert run.data["resolution"] == 128


# PGGAN, A.1: "shown the discriminator 800k real images in total", then "fade in ... during the next 800k images, stabilize the
# networks for 800k images"; "minibatch size 16 for resolutions 4^2-128^2", 14 at 256^2. Released: 12M images.
# StyleGAN, C: from 8x8; 25M images for FFHQ, 70M for LSUN Bedrooms, 46M for Cars. Released: batch sizes, 600k and 600k.
GAN_BATCHES = {
    "pggan": {4: 16, 8: 16, 16: 16, 32: 16, 64: 16, 128: 16, 256: 14},
    "stylegan": {8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8},
}
GAN_KIMG = {"pggan": 800, "stylegan": 600}  # to fade in, and as many to settle
STYLEGAN_MILLIONS = {"celeba-hq": 25.0, "ffhq": 25.0, "lsun-bedrooms": 70.0, "lsun-cars": 46.0}


@pytest.mark.parametrize("row", ["stylegan", "pggan"])
@pytest.mark.parametrize(
    ("table", "data", "resolution"),
    [
        *(("automodulator-2020/table2b", data, 256) for data in STYLEGAN_MILLIONS),
        ("automodulator-2019/table1", "celeba-hq", 128),
        ("automodulator-2019/table1", "lsun-bedrooms", 128),
    ],
)
def test_the_gans_are_trained_by_the_schedules_of_their_own_papers(table, data, resolution, row):
    (stage,) = run_of(table, row, data).stages
    phases, kimg = stage.schedule.phases, GAN_KIMG[row]
    batches = {size: batch for size, batch in GAN_BATCHES[row].items() if size <= resolution}
    assert {phase.resolution: phase.batch_size for phase in phases} == batches
    assert stage.schedule.total_kimg == 1000 * (12.0 if row == "pggan" else STYLEGAN_MILLIONS[data])
    assert (phases[0].kimg, phases[0].fade_kimg) == (kimg, 0)
    assert all((phase.kimg, phase.fade_kimg) == (2 * kimg, kimg) for phase in phases[1:-1])
    assert phases[-1].fade_kimg == kimg
    assert all(phase.learning_rate == 1e-3 for phase in phases)
    assert stage.optimizer["betas"] == [0.0, 0.99]
    assert stage.optimizer["eps"] == 1e-8


@pytest.mark.parametrize("table", ["automodulator-2020/table2b", "automodulator-2019/table1"])
def test_glow_learns_images_of_5_bits_as_its_model_of_celeba_hq_does(table):
    (stage,) = run_of(table, "glow", "celeba-hq").stages
    assert stage.objective["levels"] == 2**5


def test_age_is_trained_as_released():
    (stage,) = run_of("automodulator-2020/pioneers", "age", "celeba-hq").stages
    (phase,) = stage.schedule.phases
    assert stage.optimizer["betas"] == [0.5, 0.999]
    assert (phase.learning_rate, phase.batch_size, phase.margin) == (2e-4, 64, 0.0)
    assert stage.objective["kl_form"] == "age"


def test_samples_pairs_and_crops_are_counted_as_the_papers_count_them():
    for table, faces in [
        ("automodulator-2020/table1", {"ppl"}),
        ("automodulator-2020/table2a", {"ppl", "ppl-fixed"}),
        ("automodulator-2020/table2b", {"ppl/celeba-hq", "ppl/ffhq"}),
        ("automodulator-2019/table1", {"ppl/celeba-hq"}),
    ]:
        columns = load(EXPERIMENTS / f"{table}.yaml", scale="paper").columns
        for key, column in columns.items():
            if key.startswith(
                "fid"
            ):  # 4.1: "50k random samples in all data sets and compare against the provided training set"
                assert column.metric["num_generated"] == 50_000
                assert column.metric["num_reference"] is None
            if key.startswith("ppl"):  # A.1: 100k vectors of length 1e-4, cropped around mid-face
                assert (column.metric["num_pairs"], column.metric["epsilon"]) == (100_000, 1e-4)
                assert key in faces
                assert column.metric["crop"] == "face"
    lpips = load(EXPERIMENTS / "automodulator-2020/table2a.yaml", scale="paper").columns["lpips"]
    assert lpips.metric["crop"] == "face"  # A.1: "10k unseen test images from the FFHQ data set"
    assert lpips.measure_on == {"name": "ffhq", "resolution": 128, "split": "test", "count": 10_000}


def test_the_rows_without_numbers_in_the_paper_are_not_run_there():
    runs = load(EXPERIMENTS / "automodulator-2020/table2b.yaml", scale="paper").runs
    assert {run.data_name for run in runs if run.row == "glow"} == {"celeba-hq"}  # dashes elsewhere
    assert {run.data_name for run in runs if run.row == "stylegan"} == {"celeba-hq", "ffhq", "lsun-bedrooms", "lsun-cars"}
