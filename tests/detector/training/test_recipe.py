"""Recipes: what stands in the file is what is done, and what makes no sense is named."""

import pytest

from detector.training.recipe import Recipe
from detector.types import UsageError


def test_every_key_can_be_written_and_read(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'start = "a.pt"\nsteps = 7\npairs = 2\noptimiser = "sgd"\nsam_rho = 0.1\n'
        "[mix]\nsize = 224\nmargin = [1.1, 1.3]\ngentle = 0.25\n[mix.kinds]\nswap = 1.0\n[mix.sources]\nlfw = 2\n"
    )
    recipe = Recipe.read(path)
    assert (recipe.start, recipe.steps, recipe.pairs, recipe.optimiser, recipe.sam_rho) == ("a.pt", 7, 2, "sgd", 0.1)
    assert (recipe.mix.size, recipe.mix.margin, recipe.mix.gentle) == (224, (1.1, 1.3), 0.25)
    assert (recipe.mix.kinds, recipe.mix.sources) == ({"swap": 1.0}, {"lfw": 2})
    assert Recipe.of(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("setps = 3", "unknown key setps; there are: start, steps"),
        ("[mix]\nsise = 3", "mix: unknown key sise"),
        ("mix = 3", "mix must be a table, got 3"),
        ("steps = 0", "steps must be at least 1, got 0"),
        ('steps = "many"', "steps must be a whole number, got 'many'"),
        ("steps = 2.5", "steps must be a whole number, got 2.5"),
        ("seed = -1", "seed must not be negative"),
        ("start = 3", "start must be a text, got 3"),
        ("learning_rate = inf", "learning_rate must be a number, got inf"),
        ("[mix]\nmargin = [1.2]", "mix: margin must be two numbers"),
        ("[mix]\nmargin = [1.2, 1.9]", "margin must be a range from 1 up, to 1.78"),
        ("[mix]\nkinds = ['swap']", "mix: kinds must be a table of numbers"),
        ("[mix]\nsources = {a = 'b'}", "mix: sources must be a table of numbers"),
        ("[mix]\nprocessing = 7", "processing must be in 0..1"),
        ("[mix]\nfake_donors = 7", "fake_donors must be in 0..1"),
        ("[mix]\ngentle = -0.1", "gentle must be in 0..1, got -0.1"),
        ("[mix]\nkinds = {past = 1.0}", "no kind of fake is called past; there are: .*, swap, given, paste"),
        ("[mix]\nsize = 0", "size must be in 32..1024"),
        ("optimiser = 'adam'", "optimiser must be one of adamw, sgd, got 'adam'"),
        ("frozen_stages = 9", "frozen_stages must be 0..6"),
        ("average = 1.0", "average must be in 0..1"),
        ("steps = ", "not a TOML recipe"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Recipe.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no recipe at .*r\.toml"):
        Recipe.read(tmp_path / "r.toml")
