"""The study file, and the trials that follow from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tightwire import config as configs
from tightwire.errors import ConfigError
from tightwire.studies.folder import StudyFolder, status
from tightwire.studies.plan import Plan, plan
from tightwire.studies.spec import Study, apply, assignments, dump, load

BASE = {"rounds": 3, "training": {"lr": 0.1, "epochs": 2}, "policy": {"name": "fixed", "codec": "uniform(4)"}}
EXAMPLES = Path(__file__).parents[2] / "examples" / "studies"
NAMES = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)


def study_file(folder: Path, **keys: Any) -> Path:
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", **keys}, sort_keys=False))
    return path


def planned(folder: Path, *overrides: str, **keys: Any) -> Plan:
    return plan(load(study_file(folder, **keys), overrides))


def of(variations: list[str], grid: dict[str, Any] | None = None, seeds: Any = 2) -> Plan:
    named = [{"name": name} for name in variations]
    return plan(Study.model_validate({"variations": named, "grid": grid or {}, "seeds": seeds}))


def test_every_variation_meets_every_point_of_the_grid_with_every_seed(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        seeds=[3, 7],
        variations=[{"name": "coarse", "set": {"policy": {"codec": "uniform(2)"}}}, {"name": "fine"}],
        grid={"training.lr": [0.1, 0.2], "population.clients": [50, 60]},
    )
    points = [(t.variation, t.axes["lr"], t.axes["clients"], t.seed) for t in found.trials]
    assert points == [
        (variation, lr, clients, seed)
        for seed in (3, 7)
        for variation in ("coarse", "fine")
        for lr in (0.1, 0.2)
        for clients in (50, 60)
    ]
    for trial, (variation, lr, clients, seed) in zip(found.trials, points, strict=True):
        config = trial.config
        assert (config.seed, config.training.lr, config.population.clients) == (seed, lr, clients)
        assert config.training.epochs == 2, "what no variation names comes from the base"
        assert config.policy.model_dump()["codec"] == {"coarse": "uniform(2)", "fine": "uniform(4)"}[variation]


def test_a_grid_over_what_meets_the_world_names_variations_and_levels_may_have_names(tmp_path: Path) -> None:
    levels = {1: {"population": {"spread": 0}}, 4: {"population": {"spread": 1, "clients": 70}}}
    codecs = ["uniform(2)", "topk(0.1) | uniform(4) | rans"]
    found = planned(tmp_path, seeds=1, grid={"policy.codec": codecs, "uneven": levels})
    assert [t.label for t in found.trials] == [
        "codec=uniform(2), uneven=1",
        "codec=uniform(2), uneven=4",
        "codec=topk(0.1)|uniform(4)|rans, uneven=1",
        "codec=topk(0.1)|uniform(4)|rans, uneven=4",
    ]
    assert [dict(t.axes) for t in found.trials] == [{"uneven": 1}, {"uneven": 4}] * 2
    assert [t.config.population.clients for t in found.trials] == [100, 70] * 2


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_folders_have_names_of_their_own_even_where_capitals_do_not_count(names: list[str]) -> None:
    trials = of(names).trials
    folders = [trial.name for trial in trials]
    assert len({folder.lower() for folder in folders}) == len(trials) == 2 * len(names)
    assert all(configs.parse({"name": folder}) for folder in folders), "a folder's name is a run's name"
    assert {trial.variation for trial in trials} == set(names)


def test_trials_are_tracked_nowhere_and_the_study_where_its_experiment_says(tmp_path: Path) -> None:
    found = planned(tmp_path, seeds=1, set={"tracking.experiment": "mine"})
    assert (found.tracking.to, found.tracking.experiment) == ("mlflow", "mine")
    assert {trial.config.tracking.to for trial in found.trials} == {"nowhere"}


def test_layers_go_over_one_another_in_order_and_another_name_starts_a_section_anew(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        "training.lr=0.5",
        experiment={"rounds": 4, "training": {"batch": 5}},
        set={"rounds": 5},
        seeds=1,
        variations=[{"name": "budget", "set": {"policy": {"max_ratio": 0.2, "name": "budget"}}}],
    )
    config = found.trials[0].config
    assert (config.rounds, config.training.batch, config.training.lr, config.training.epochs) == (5, 5, 0.5, 2)
    assert (config.policy.name, config.policy.model_dump()["max_ratio"]) == ("budget", 0.2)


def test_a_mapping_below_a_section_is_one_value() -> None:
    tree: dict[str, Any] = {"population": {"clients": 9, "tiers": {"pi4-wifi": 1}}}
    apply(tree, {"population": {"tiers": {"old-phone-lte": 2}}})
    assert tree == {"population": {"clients": 9, "tiers": {"old-phone-lte": 2}}}
    apply(tree, {"population.tiers.pi4-wifi": 3})
    assert tree["population"]["tiers"] == {"old-phone-lte": 2, "pi4-wifi": 3}
    assert next(assignments({"a": {"x": 1, "name": 2}})) == (("a", "name"), 2)


def test_a_study_reads_back_as_it_was_written_down_with_its_base_and_overrides(tmp_path: Path) -> None:
    path = study_file(
        tmp_path,
        name="mine",
        seeds=[4, 2],
        target=0.9,
        variations=[{"name": "a, b", "set": {"training.lr": 0.3}}],
        grid={"participation.cohort": [5, 6]},
        report={"baseline": "a, b"},
    )
    study = load(path, ["rounds=9"])
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "study.yaml"
    copy.write_text(dump(study))
    assert load(copy) == study
    assert plan(load(copy)) == plan(study)
    assert {trial.config.rounds for trial in plan(study).trials} == {9}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"sead": 3}, r"sead: unknown key \(received 3\); did you mean seeds\?"),
        ({"seeds": 0}, r"seeds: should be how many, such as 5, or a list.*received 0"),
        ({"seeds": [1, 1]}, r"seeds: names seed 1 twice"),
        ({"seeds": []}, r"seeds: should name at least one"),
        ({"variations": [{"set": {}}]}, r"variations\.0\.name: is missing"),
        ({"variations": [{"nam": "a"}]}, r"variations\.0\.nam: unknown key.*did you mean name\?"),
        ({"variations": [{"name": "a", "sets": {}}]}, r"variations\.0\.sets: unknown key.*did you mean set\?"),
        ({"variations": [{"name": "a"}, {"name": "a"}]}, r"'a' names two of them"),
        ({"variations": [{"name": "a", "set": {"seed": 1}}]}, r"seed: a study settles this itself, `seeds` says"),
        ({"variations": [{"name": "a", "set": {"rounds": 0}}]}, r"variation 'a': rounds: .*greater than or equal to 1"),
        (
            {"variations": [{"name": "a", "set": {"training": {"lt": 1}}}]},
            r"variation 'a': training\.lt: unknown key.*did you mean lr\?",
        ),
        ({"variations": [{"name": "a", "set": {"rounds.x": 1}}]}, r"variation 'a': rounds\.x: rounds is the value 3"),
        ({"set": {"polisy": {}}, "seeds": 1}, r"polisy"),
        ({"grid": {"rounds": []}}, r"grid: rounds should be a list of values"),
        ({"grid": {"rounds": 3}}, r"grid: rounds should be a list of values, or levels.*got 3"),
        ({"grid": {"rounds": [3, 3]}}, r"grid: rounds has the value 3 twice"),
        ({"grid": {"uneven": {"a": 3}}}, r"grid: uneven\.a should set a tree"),
        ({"grid": {"training..lr": [3]}}, r"'training\.\.lr' is not a key"),
        (
            {"report": {"baseline": "fixd"}, "variations": [{"name": "fixed"}]},
            r"report\.baseline.*did you mean 'fixed'",
        ),
        ({"report": {"orakle": "x"}}, r"report\.orakle: unknown key.*did you mean oracle"),
        ({"target": 90}, r"target: .*less than or equal to 1.*received 90"),
        ({"base": "none.yaml"}, r"none\.yaml: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_study_is_one_line_before_anything_is_run(
    keys: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        planned(tmp_path, **keys)
    assert "\n" not in str(caught.value)


def test_two_variations_that_come_out_under_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two variations come out as 'a, u=b, u=b'"):
        of(["a, u=b", "a"], {"u": {"b": {}, "b, u=b": {}}})


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("policy.codec=uniform(8)", "the grid sets policy.codec itself"),
        ("training.epochs=3", "variation 'a' sets training.epochs itself"),
        ("link.sigma=1", None),
        ("policy={name: budget}", "the grid sets policy.codec itself"),
        ("participation.over=1", "variation 'a' sets participation.name itself"),
        ("seed=3", "a study settles seed itself"),
        ("rounds", "should be key=value"),
    ],
)
def test_an_override_that_a_variation_would_undo_is_refused(override: str, line: str | None, tmp_path: Path) -> None:
    path = study_file(
        tmp_path,
        variations=[{"name": "a", "set": {"training": {"epochs": 1}, "participation": {"name": "x"}}}],
        grid={"policy.codec": ["uniform(2)"]},
    )
    if line is None:
        assert load(path, [override]).experiment["link"] == {"sigma": 1}
        return
    with pytest.raises(ConfigError, match=line):
        load(path, [override])


def test_a_folder_takes_more_seeds_and_refuses_trials_that_were_another_experiment(tmp_path: Path) -> None:
    study = load(study_file(tmp_path, seeds=1))
    folder = StudyFolder.create(tmp_path / "studies", study.name)
    folder.prepare(study, plan(study).trials)
    more = load(tmp_path / "study.yaml", seeds=2)
    folder.prepare(more, plan(more).trials)
    assert sorted(path.name for path in folder.trials.iterdir()) == ["as-it-is-s0", "as-it-is-s1"]
    assert {status(folder.trial(trial.name)) for trial in plan(more).trials} == {"open"}
    assert StudyFolder.open(folder.path).read() == more
    other = load(tmp_path / "study.yaml", ["training.lr=0.7"])
    folder.trial("as-it-is-s0").summary.write_text("{}")
    with pytest.raises(ConfigError, match=r"training\.lr: is 0\.1 in trial as-it-is-s0.* and 0\.7 now"):
        folder.prepare(other, plan(other).trials)
    assert folder.read() == more, "a refused study leaves the folder as it was"


@pytest.mark.parametrize("left", ["error.txt", "checkpoint", "summary.json", None])
def test_only_a_trial_that_leaves_nothing_behind_may_become_another_experiment(
    tmp_path: Path, left: str | None
) -> None:
    study = load(study_file(tmp_path, seeds=1))
    folder = StudyFolder.create(tmp_path / "studies", study.name)
    folder.prepare(study, plan(study).trials)
    trial = folder.trial("as-it-is-s0")
    if left is not None:
        (trial.path / left).mkdir() if left == "checkpoint" else (trial.path / left).write_text("{}")
    other = load(tmp_path / "study.yaml", ["training.lr=0.7"])
    if left in ("checkpoint", "summary.json"):
        with pytest.raises(ConfigError, match=r"training\.lr: is 0\.1 in trial as-it-is-s0"):
            folder.prepare(other, plan(other).trials)
        return
    folder.prepare(other, plan(other).trials)
    assert "lr: 0.7" in trial.config.read_text()
    assert status(trial) == "open", "of the failure nothing is left"


def test_a_study_that_goes_on_gives_up_neither_seeds_nor_finished_trials(tmp_path: Path) -> None:
    study = load(study_file(tmp_path, seeds=3))
    folder = StudyFolder.create(tmp_path / "studies", study.name)
    folder.prepare(study, plan(study).trials)
    fewer = load(tmp_path / "study.yaml", seeds=2)
    with pytest.raises(ConfigError, match=r"seeds: .* has 0, 1, 2, got 0, 1; .* leave --seeds out"):
        folder.keeps(fewer, plan(fewer).trials)
    folder.keeps(study, plan(study).trials)
    renamed = load(study_file(tmp_path, seeds=3, variations=[{"name": "new"}]))
    folder.keeps(renamed, plan(renamed).trials)
    folder.trial("as-it-is-s1").summary.write_text("{}")
    with pytest.raises(ConfigError, match=r"trial as-it-is-s1 of .* has finished and belongs to none"):
        folder.keeps(renamed, plan(renamed).trials)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_studies_that_run_anywhere(path: Path) -> None:
    study = load(path)
    assert study.name == path.stem
    trials = plan(study).trials
    assert {trial.config.data.name for trial in trials} == {"digits"}
    assert plan(load(path, ["data.name=mnist", "data.folder=somewhere"])).trials[0].config.data.name == "mnist"
