"""A model and settings of one's own: what a file and three variables say is what the course runs.

What cannot be meant is told with file, line, key, value and what is wanted.
"""

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import ROOT

from coursekit.common import profile as profiles
from coursekit.common.profile import (
    DTYPES,
    LINEAR_LAYERS,
    TINY_MODEL,
    Profile,
    TrainingSettings,
    load_profile,
)

VARIABLES = ("COURSE_PROFILE", "COURSE_MODEL", "COURSE_REVISION", "COURSE_ARTIFACTS")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture()
def written(tmp_path, monkeypatch):
    """A function that writes a profile file, and sets COURSE_PROFILE to it."""

    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setenv("COURSE_PROFILE", str(path))
        return path

    return write


@pytest.fixture()
def at_course(tmp_path, monkeypatch):
    """A course's folder of the test's own, from which relative paths count."""
    root = (tmp_path / "course").resolve()
    root.mkdir()
    monkeypatch.setattr(profiles, "ROOT", root)
    return root


def error_of(kind=ValueError):
    with pytest.raises(kind) as caught:
        load_profile()
    message = str(caught.value)
    assert "\n" not in message
    return message


# A file.


def test_an_empty_file_is_the_tiny_profile_by_another_name(written):
    written("")
    assert load_profile() == replace(load_profile("tiny"), name="mine")


def test_a_file_changes_what_it_says_and_nothing_else(written, tmp_path):
    written(
        f"""
        base = "gpu"
        name = "house"  # a comment
        dtype = "float16"
        temperatures = [0.5, 1]
        artifacts = '{tmp_path}'
        dpo.beta = 0.3
        [sft]
        epochs = 1
        lora_targets = ["q_proj"]
        """
    )
    gpu = load_profile("gpu")
    assert load_profile() == replace(
        gpu,
        name="house",
        dtype="float16",
        temperatures=(0.5, 1),
        artifacts=tmp_path,
        dpo=replace(gpu.dpo, beta=0.3),
        sft=replace(gpu.sft, epochs=1, lora_targets=("q_proj",)),
    )


VALUES = {
    "str": ('"text"', "text"),
    "int": ("7", 7),
    "float": ("0.25", 0.25),
    "bool": ("true", True),
    "tuple[float, ...]": ("[0.5, 2]", (0.5, 2)),
    "tuple[str, ...]": ('["one", "two"]', ("one", "two")),
}
OWN_VALUES = {"dtype": ('"bfloat16"', "bfloat16")}


def every_field():
    for table, cls in (("", Profile), ("sft", TrainingSettings), ("dpo", TrainingSettings)):
        for one in fields(cls):
            if one.name not in ("sft", "dpo", "artifacts", "revision"):
                yield table, one


@pytest.mark.parametrize(
    ("table", "one"), [pytest.param(*it, id=f"{it[0]}.{it[1].name}") for it in every_field()]
)
def test_every_field_can_be_written(table, one, written):
    """At the top those of Profile; those of TrainingSettings in either table."""
    text, value = OWN_VALUES.get(one.name) or VALUES[one.type.removesuffix(" | None")]
    written(f"{f'[{table}]' if table else ''}\n{one.name} = {text}\n")
    tiny, changed = load_profile("tiny"), {one.name: value}
    if table:
        changed = {table: replace(getattr(tiny, table), **changed)}
    assert load_profile() == replace(tiny, **{"name": "mine", **changed})


def test_a_whole_number_does_where_a_number_is_wanted(written):
    written("[dpo]\nbeta = 1")
    assert load_profile().dpo.beta == 1


def test_no_threads_are_none(written):
    written("threads = 0")
    assert load_profile("tiny").threads == 2 and load_profile().threads is None


def test_no_warmup(written):
    written("sft = {warmup = 0}")
    assert load_profile().sft.warmup == 0


def test_another_base_model_forgets_the_revision_of_the_first(written, monkeypatch):
    pinned = replace(load_profile("colab"), revision="abc")
    monkeypatch.setattr(profiles, "_profiles", lambda: {"colab": pinned})
    written('base = "colab"')
    assert load_profile().revision == "abc"
    written('base = "colab"\nbase_model = "owner/name"')
    assert load_profile().revision is None
    written('base = "colab"\nbase_model = "owner/name"\nrevision = "def"')
    assert load_profile().revision == "def"


@pytest.mark.parametrize("place", ["settings/mine.toml", "~/mine.TOML"])
def test_where_a_file_is_looked_for(place, at_course, tmp_path, monkeypatch):
    """Relative to the course's folder, wherever the process runs; ~ is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = Path(str(at_course / place) if place[0] != "~" else place.replace("~", str(tmp_path)))
    path.parent.mkdir(exist_ok=True)
    path.write_text("max_new_tokens = 11", encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("COURSE_PROFILE", place)
    assert load_profile().max_new_tokens == load_profile(place).max_new_tokens == 11


def test_relative_paths_in_a_file_count_from_the_courses_folder(written, at_course):
    (at_course / "model").mkdir()
    written("artifacts = 'runs'\nbase_model = 'model'")
    assert load_profile().artifacts == at_course / "runs"
    assert load_profile().base_model == str(at_course / "model")


def test_the_variable_goes_before_a_files_artifacts(written, tmp_path, monkeypatch):
    written("artifacts = 'runs'")
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path))
    assert load_profile().artifacts == tmp_path


@pytest.mark.parametrize(
    ("file", "name"), [("my model (2).toml", "my-model-2"), ("Größe.toml", "Größe")]
)
def test_a_files_name_is_made_one_for_folders(file, name, written):
    written("", file)
    assert load_profile().name == name


def test_a_file_does_not_take_a_shipped_profiles_folder(written):
    path = written("", "Tiny.toml")
    assert str(path) in (message := error_of()) and 'write name = "my_Tiny"' in message
    written('name = "small"', "Tiny.toml")
    assert load_profile().name == "small"


def test_a_byte_order_mark_and_ends_of_lines_of_windows(written):
    written(b"\xef\xbb\xbfthreads = 3\r\n[dpo]\r\nbeta = 0.5\r\n")
    assert (load_profile().threads, load_profile().dpo.beta) == (3, 0.5)
    written(b"threads = 3\r\n\r\n[dpo]\r\nbeta = 0\r\n")
    assert "line 4: dpo.beta = 0: " in error_of()


WRONG = [  # text; the line; what is said of it
    ("\nthread = 2", 2, "thread = 2: no such key: did you mean threads?"),
    (
        "[dpo]\nbeta = 0.1\nBatch-Size = 2",
        3,
        "dpo.Batch-Size = 2: no such key: did you mean batch_s",
    ),
    ("[dop]\nbeta = 0.1", 1, "dop = {'beta': 0.1}: no such key: did you mean dpo?"),
    ("FOUR-BIT = true", 1, "FOUR-BIT = True: no such key: did you mean four_bit?"),
    ("zzz = 1", 1, "zzz = 1: no such key: there are base, name, base_model, sft, dpo, revision"),
    ("[sft]\nzzz = 1", 2, "sft.zzz = 1: no such key: there are learning_rate, epochs, "),
    ("beta = 0.3", 1, "beta = 0.3: no such key: it belongs below [sft] or [dpo]"),
    ("[dpo]\nthreads = 2", 2, "dpo.threads = 2: no such key: it belongs to the top, above"),
    ("[dpo]\nbase = 'gpu'", 2, "dpo.base = 'gpu': no such key: it belongs to the top, above"),
    ("base = 'huge'", 1, "base = 'huge': write a shipped profile: tiny, laptop, colab or gpu"),
    ("base = 3", 1, "base = 3: write a shipped profile"),
    ("name = 'a/b'", 1, "name = 'a/b': write letters, digits, _, - and dots, but no"),
    ("name = '..'", 1, "name = '..': write letters, digits, _, - and dots, but no"),
    ("name = 'GPU'", 1, "name = 'GPU': write letters, digits, _, - and dots, but no"),
    ("name = ''", 1, "name = '': write letters, digits, _, - and dots, but no"),
    ("base_model = ''", 1, "base_model = '': write text in quotes"),
    ("base_model = ' '", 1, "base_model = ' ': write text in quotes"),
    ('base_model = "a\\u0000b"', 1, "base_model = 'a\\x00b': write text in quotes"),
    ("revision = 7", 1, "revision = 7: write text in quotes"),
    ("dtype = 'int8'", 1, "dtype = 'int8': write one of float32, float16, bfloat16"),
    ("dtype = ['float32']", 1, "dtype = ['float32']: write one of float32"),
    ("four_bit = 1", 1, "four_bit = 1: write true or false"),
    ("four_bit = 'true'", 1, "four_bit = 'true': write true or false"),
    ("threads = -1", 1, "threads = -1: write a whole number, 0 for as torch chooses"),
    ("threads = true", 1, "threads = True: write a whole number"),
    ("max_new_tokens = 0", 1, "max_new_tokens = 0: write a whole number, from 1 to a billion"),
    (
        "demonstrations = 10.0",
        1,
        "demonstrations = 10.0: write a whole number, from 1 to a billion",
    ),
    ("evaluation_prompts = '300'", 1, "evaluation_prompts = '300': write a whole number"),
    ("generation_batch = 10000000000000", 1, "generation_batch = 10000000000000: write a whole"),
    ("temperatures = 0.7", 1, "temperatures = 0.7: write a list of numbers above 0"),
    ("temperatures = []", 1, "temperatures = []: write a list of numbers above 0"),
    ("temperatures = [0.7, 0]", 1, "temperatures = [0.7, 0]: write a list of numbers above 0"),
    ("artifacts = 1979-05-27", 1, "artifacts = datetime.date(1979, 5, 27): write a path in quotes"),
    ("sft = 3", 1, "sft = 3: write a table"),
    ("[[sft]]\nepochs = 1", 1, "sft = [{'epochs': 1}]: write a table"),
    ("[sft]\nepochs = 'two'", 2, "sft.epochs = 'two': write a number above 0"),
    ("[sft]\nepochs = true", 2, "sft.epochs = True: write a number above 0"),
    ("[sft]\nlearning_rate = -1e-3", 2, "sft.learning_rate = -0.001: write a number above 0"),
    ("[sft]\nlearning_rate = nan", 2, "sft.learning_rate = nan: write a number above 0"),
    ("[sft]\nlearning_rate = inf", 2, "sft.learning_rate = inf: write a number above 0"),
    ("[dpo]\nbeta = 0", 2, "dpo.beta = 0: write a number above 0"),
    ("[dpo]\nwarmup = 1", 2, "dpo.warmup = 1: write a share of the steps, from 0 to below 1"),
    ("[dpo]\nlora_targets = 'q_proj'", 2, "dpo.lora_targets = 'q_proj': write a list of texts"),
    ("[dpo]\nlora_targets = ['q', 1]", 2, "dpo.lora_targets = ['q', 1]: write a list of texts"),
    # Where a line only looks like the key's.
    ("# threads = 'x'\nname = '''\nthreads = 1\n'''\nthreads = 'x'", 2, "name = "),
    ("[sft]\nepochs = 1\n\n[dpo] # epochs\n\n'epochs' = [\n0,\n]", 6, "dpo.epochs = [0]: "),
    ("dpo.beta = 1\nsft = {epochs = 1, beta = 'x'}", 2, "sft.beta = 'x': "),
    # The revision of a folder.
    ("threads = 1\nrevision = 'main'", 2, f"revision = 'main': {TINY_MODEL} is a folder and has n"),
    # No TOML.
    ("threads = 2\n\ndtype = bfloat16\n", 3, "is not TOML (Invalid value): write one key = value"),
    ("threads = 2\ndpo\n", 2, "is not TOML"),
    ("threads = 2\nthreads = 3", 2, "is not TOML (Cannot overwrite a value)"),
    ("\n\nname = 'x\n", 3, "is not TOML"),
    ('threads = 2\nbase_model = "C:\\models"\n', 2, "a path in single ones"),
    ("threads = 2\n[dpo]\nlora_targets = [\n'a',\n", 3, "is not TOML"),
    ("temperatures = [\n0.7,\nhot,\n]", 3, "is not TOML"),
    ("threads = 2\nname = " + "[" * 5000, 2, "is not TOML"),
    ("threads = 2\nname = " + "1" * 5000, 2, "is not TOML"),
    (b"threads = 2\n# gr\xf6\xdfer\n", 2, "is not text in UTF-8 (byte 16): save it as UTF-8"),
    ("threads = 2".encode("utf-16"), 1, "is not text in UTF-8"),
]


@pytest.mark.parametrize(("text", "line", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_in_a_file_is_told_with_its_line(text, line, said, written):
    path = written(text)
    message = error_of()
    assert message.startswith(f"{path}, line {line}{':' if ' = ' in said[:40] else ','} ")
    assert said in message and len(message) < 500 + len(str(path))


def test_the_first_wrong_thing_is_told(written):
    written("threads = -2\nwarmth = 3")
    assert "threads = -2" in error_of()


@pytest.mark.parametrize("place", ["missing.toml", "folder.toml"])
def test_no_such_file(place, at_course, monkeypatch):
    (at_course / "folder.toml").mkdir()
    monkeypatch.setenv("COURSE_PROFILE", place)
    message = error_of(FileNotFoundError)
    assert message.startswith(f"no file {at_course / place}: correct COURSE_PROFILE")
    assert f"a relative path counts from {at_course}" in message


def test_a_model_that_a_file_names_and_that_is_not_there(written, at_course):
    path = written("threads = 1\nbase_model = './model'")
    message = error_of(FileNotFoundError)
    assert message.startswith(
        f"{path}, line 2: base_model = './model': {at_course / 'model'} is no"
    )


def test_an_unknown_name_says_that_a_file_would_do():
    with pytest.raises(ValueError, match=r"'huge': .* laptop, colab, gpu, or to a file .* \.toml"):
        load_profile("huge")


# A model.


def test_a_hub_model_replaces_model_and_revision_and_nothing_else(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "colab")
    before = load_profile()
    monkeypatch.setenv("COURSE_MODEL", "owner/My.Model-1B")
    plain = load_profile()
    assert re.fullmatch(r"colab-My\.Model-1B-[0-9a-f]{6}", plain.name)
    assert plain == replace(before, name=plain.name, base_model="owner/My.Model-1B")
    monkeypatch.setenv("COURSE_REVISION", "abc")
    pinned = load_profile()
    assert pinned == replace(plain, name=pinned.name, revision="abc") and pinned.name != plain.name


def test_the_digits_are_those_of_the_whole_name(monkeypatch):
    """Written down, so that runs made today are found tomorrow."""
    monkeypatch.setenv("COURSE_MODEL", "owner/name")
    monkeypatch.setenv("COURSE_REVISION", "abc")
    assert load_profile("tiny").name == "tiny-name-0b67b9"


def test_a_profile_loses_its_revision_with_its_model(monkeypatch):
    pinned = replace(load_profile("colab"), revision="abc")
    monkeypatch.setattr(profiles, "_profiles", lambda: {"colab": pinned})
    monkeypatch.setenv("COURSE_MODEL", "owner/name")
    assert load_profile("colab").revision is None


def test_a_revision_alone_is_that_of_the_profiles_hub_model(monkeypatch):
    before = load_profile("gpu")
    monkeypatch.setenv("COURSE_REVISION", "abc")
    after = load_profile("gpu")
    assert after == replace(before, name=after.name, revision="abc")
    assert re.fullmatch(r"gpu-Qwen2\.5-1\.5B-Instruct-[0-9a-f]{6}", after.name)


def test_a_folder_has_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_REVISION", "abc")
    for variables in ({}, {"COURSE_MODEL": str(tmp_path)}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        folder = str(tmp_path.resolve()) if variables else TINY_MODEL
        message = error_of()
        assert message.startswith(f"COURSE_REVISION=abc, but the model is the folder {folder}")
        assert "a folder has no revision: take COURSE_REVISION away" in message


@pytest.mark.parametrize("said", ["models/mine", "./models/mine/", "models/../models/mine"])
def test_a_folder_counts_from_the_course_and_becomes_absolute(said, at_course, monkeypatch):
    """And goes before a hub name that reads the same; where the process runs does not matter."""
    folder = at_course / "models" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(at_course / "models")
    monkeypatch.setenv("COURSE_MODEL", said)
    assert load_profile().base_model == str(folder)
    assert re.fullmatch(r"tiny-mine-[0-9a-f]{6}", load_profile().name)
    name = load_profile().name
    monkeypatch.setenv("COURSE_MODEL", str(folder))
    assert load_profile().name == name


def test_home(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("COURSE_MODEL", "~/mine")
    assert load_profile().base_model == str((tmp_path / "mine").resolve())


def test_a_folders_name_is_made_safe_for_files(tmp_path, monkeypatch):
    for name, slug in (("my model (v2)", "my-model-v2"), ("x" * 200, "x" * 60), ("((", "model")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("COURSE_MODEL", str(tmp_path / name))
        assert re.fullmatch(rf"tiny-{slug}-[0-9a-f]{{6}}", load_profile().name)


def test_two_models_never_share_a_folder_of_runs(tmp_path, monkeypatch):
    found = []
    for place in ("one/model", "two/model"):
        (tmp_path / place).mkdir(parents=True)
        found.append((str(tmp_path / place), ""))
    found += [("one/model", ""), ("two/model", ""), ("two/model", "a"), ("two/model", "b")]
    names = set()
    for model, revision in found:
        monkeypatch.setenv("COURSE_MODEL", model)
        monkeypatch.setenv("COURSE_REVISION", revision)
        names.add(load_profile().name)
    assert len(names) == len(found)


MISSING = ["./mine", "../mine", "/no/such/place", "~/no such", ".\\mine", "C:\\mine", "a/b/c", "a/"]
MISSING += [
    "my model",
    "https://huggingface.co/owner/name",
    "owner/name@main",
    "~nobody-here",
    "größe/modell",
]


@pytest.mark.parametrize("said", MISSING)
def test_what_can_only_be_a_folder_must_be_there(said, at_course, monkeypatch):
    monkeypatch.setenv("COURSE_MODEL", said)
    message = error_of(FileNotFoundError)
    assert message.startswith(f"COURSE_MODEL={said}: ") and "is no folder. Correct" in message
    assert f"a relative one counts from {at_course}" in message and "owner/name" in message


def test_a_file_is_no_model(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setenv("COURSE_MODEL", str(tmp_path / "model.safetensors"))
    assert "is a file: name the folder it lies in" in error_of(FileNotFoundError)


@pytest.mark.parametrize("said", [TINY_MODEL, "coursekit/lm/tiny", "./coursekit/lm/../lm/tiny/"])
def test_the_shipped_model_by_its_name_changes_nothing(said, monkeypatch):
    before = load_profile()
    monkeypatch.setenv("COURSE_MODEL", said)
    assert load_profile() == before
    assert re.fullmatch(r"gpu-tiny-[0-9a-f]{6}", load_profile("gpu").name)  # there it is another


def test_a_profiles_own_hub_model_by_its_name_changes_nothing(monkeypatch):
    pinned = replace(load_profile("colab"), revision="abc")
    monkeypatch.setattr(profiles, "_profiles", lambda: {"colab": pinned})
    monkeypatch.setenv("COURSE_MODEL", pinned.base_model)
    assert load_profile("colab") == pinned
    monkeypatch.setenv("COURSE_REVISION", "abc")
    assert load_profile("colab") == pinned
    monkeypatch.setenv("COURSE_REVISION", "def")
    assert load_profile("colab").revision == "def"
    assert load_profile("colab").name != "colab"


def test_a_model_goes_before_a_files(written, monkeypatch):
    written("base_model = 'owner/one'\nrevision = 'abc'\nthreads = 3")
    monkeypatch.setenv("COURSE_MODEL", "owner/two")
    found = load_profile()
    assert (found.base_model, found.revision, found.threads) == ("owner/two", None, 3)
    assert found.name.startswith("mine-two-")


def test_nothing_is_set_by_blanks(monkeypatch):
    before = load_profile()
    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, " ")
    assert load_profile() == before


def test_a_new_process_knows_the_profile_by_its_name(written, monkeypatch):
    """It inherits the variables, and is told the name."""
    written("threads = 3")
    assert load_profile("mine") == load_profile()
    monkeypatch.setenv("COURSE_MODEL", "owner/name")
    assert load_profile(load_profile().name) == load_profile()
    with pytest.raises(ValueError, match="unknown profile 'mine'"):
        load_profile("mine")


# The module.


def test_every_annotation_has_a_kind():
    """Whoever adds a field of another type says what a file may write for it."""
    kinds = {
        one.type.removesuffix(" | None")
        for cls in (Profile, TrainingSettings)
        for one in fields(cls)
    }
    assert kinds == set(profiles._BY_KIND)


def test_shipped_profiles_could_be_written_in_a_file():
    """Their values are among those that a file's are checked against."""
    for name in ("tiny", "colab", "gpu"):
        shipped = load_profile(name)
        assert shipped.dtype in DTYPES and shipped.sft.lora_targets == LINEAR_LAYERS
        for owner in (shipped, shipped.sft, shipped.dpo):
            for one in fields(owner):
                value = getattr(owner, one.name)
                words, fits = (
                    profiles._BY_NAME.get(one.name)
                    or profiles._BY_KIND[one.type.removesuffix(" | None")]
                )
                if isinstance(value, (str, int, float, tuple)) and one.name != "name":
                    assert fits(list(value) if isinstance(value, tuple) else value), (name, words)


def test_the_standard_library_is_enough(tmp_path):
    """The commands read the profile before anything is installed; the rest waits until it is used.

    `-S` takes away what is installed, `-I` the environment's paths.
    """
    (tmp_path / "mine.toml").write_text("base = 'gpu'\n[dpo]\nbeta = 0.7", encoding="utf-8")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
before = set(sys.modules)
from coursekit.common.profile import load_profile
late = {{"tomllib", "hashlib", "difflib"}} & (set(sys.modules) - before)
ours = [name for name in sys.modules if name.startswith("coursekit")]
found = load_profile({str(tmp_path / "mine.toml")!r})
print(sorted(late), sorted(ours), found.dpo.beta)
"""
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    modules = ["coursekit", "coursekit.common", "coursekit.common.profile"]
    assert said.split() == f"[] {modules} 0.7".split()


def test_the_readmes_example_is_one(written):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    written(example)
    gpu, found = load_profile("gpu"), load_profile()
    assert found == replace(
        gpu, name="mine", base_model="owner/name", threads=4, dpo=replace(gpu.dpo, beta=0.3)
    )
    assert len(example.splitlines()) == 5
