"""Secrets stop a release, whatever their kind; what a release is made of does not.

Every secret here is made up, and put together when the tests run: no scanner takes this file for a
leak.
"""

import base64
import hashlib
import json
import random
import string
from pathlib import Path

import pytest

from coursekit.common import secret_scan
from coursekit.common.secret_scan import assert_no_secrets

LETTERS, HEX = string.ascii_letters + string.digits, "0123456789abcdef"


def token(*parts):
    return "".join(parts)


def secrets(seed=0):
    """A secret of each kind, as one finds them in files; other ones for each seed."""
    rng = random.Random(seed)

    def some(n, alphabet=LETTERS):
        return "".join(rng.choice(alphabet) for _ in range(n))

    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    def block(kind):
        return f"-----{'BEGIN'} {kind}-----\n{some(64)}\n-----END {kind}-----"

    return {
        "AWS key id": token("AK", "IA", some(16, "ABCDEFGHIJ234567")),
        "AWS temporary key id": token("AS", "IA", some(16, "ABCDEFGHIJ234567")),
        "AWS secret in a shell": f"export AWS_SECRET_ACCESS_KEY={some(40)}",
        "AWS secret in a config": f"aws_secret_access_key = {some(20)}/{some(10)}+{some(8)}",
        "AWS secret in JSON": json.dumps({"SecretAccessKey": some(40)}),
        "AWS session token": f"AWS_SESSION_TOKEN={token('FwoG', 'ZXIvYXdz', some(80))}==",
        "Google API key": token("AI", "za", some(35)),
        "Google OAuth secret": token("GOC", "SPX-", some(28)),
        "Google access token": token("ya", "29.", some(60)),
        "Google service account": json.dumps({"private_key": block("PRIVATE KEY"), "type": "x"}),
        "Slack bot": token("xo", "xb-", "123456789012-1234567890123-", some(24)),
        "Slack webhook": token(
            "https://hooks.slack", ".com/services/T", some(8), "/B", some(8), "/", some(24)
        ),
        "JWT": f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': some(9)})}.{some(43)}",
        "PGP key": block("PGP PRIVATE KEY BLOCK"),
        "SSH key": block("OPENSSH PRIVATE KEY"),
        "RSA key": block("RSA PRIVATE KEY"),
        "encrypted key": block("ENCRYPTED PRIVATE KEY"),
        "GitLab": token("gl", "pat-", some(20)),
        "GitHub": token("gh", "p_", some(36)),
        "GitHub, fine": token("github", "_pat_", some(22), "_", some(59)),
        "GitHub, OAuth": token("gh", "o_", some(36)),
        "Stripe": token("sk", "_live_", some(24)),
        "Stripe, restricted": token("rk", "_live_", some(99)),
        "Stripe webhook": token("wh", "sec_", some(32)),
        "npm": token("np", "m_", some(36)),
        "npm, in .npmrc": f"//registry.npmjs.org/:_authToken={token('np', 'm_', some(36))}",
        "PyPI": token("py", "pi-AgEIcHlwaS5vcmc", some(90)),
        "SendGrid": token("S", "G.", some(22), ".", some(43)),
        "Postgres address": token("postgres", "://app:", "s3cr", "et@db.example.com:5432/prod"),
        "MongoDB address": token("mongodb+srv", "://root:", "hunter2", "@cluster0.mongodb.net"),
        "Redis address": token("redis", "://:", "p4ssw0rd", "@10.0.0.1:6379/0"),
        "git address": token("https", "://me:", some(20), "@github.com/me/mine.git"),
        "Hugging Face": token("h", "f_", some(34)),
        "OpenAI": token("s", "k-", some(20), "T3Bl", "bkFJ", some(20)),
        "OpenAI, project": token("s", "k-proj-", some(60)),
        "Anthropic": token("s", "k-ant-api03-", some(90)),
        "OpenRouter": token("s", "k-or-v1-", some(64, HEX)),
        "Twilio": token("S", "K", some(32, HEX)),
        "Mailchimp": token(some(32, HEX), "-us", "12"),
        "Mailgun": token("ke", "y-", some(32, HEX)),
        "Azure storage": f"DefaultEndpointsProtocol=https;{token('Account', 'Key=')}{some(86)}==;",
        "Azure client secret": f"AZURE_CLIENT_SECRET={token(some(3), '8', 'Q~', some(33))}",
        "Discord": token("M", some(23), ".", some(6), ".", some(27)),
        "Telegram": token("123456789", ":AA", some(33)),
        "DigitalOcean": token("dop", "_v1_", some(64, HEX)),
        "Databricks": token("da", "pi", some(32, HEX)),
        "Docker": token("dckr", "_pat_", some(27)),
        "Docker's config": json.dumps({"auths": {"x.io": {"auth": some(44)}}}),
        "Shopify": token("shp", "at_", some(32, HEX)),
        "Grafana": token("gl", "sa_", some(32), "_", some(8, HEX)),
        "Groq": token("gs", "k_", some(52)),
        "Replicate": token("r", "8_", some(37)),
        "Vault": token("hv", "s.", some(24)),
        "New Relic": token("NR", "AK-", some(27, "ABCDEFGHIJ0123456789")),
        "W&B in an environment file": f"WANDB_API_KEY={some(40, HEX)}",
        "W&B in .netrc": f"machine api.wandb.ai\n  login user\n  password {some(40, HEX)}",
        "Kaggle": json.dumps({"username": "me", "key": some(32, HEX)}),
        "Heroku": "HEROKU_API_KEY: 01234567-89ab-4cde-8f01-23456789abcd",
        "bearer": f"curl -H 'Authorization: Bearer {some(40)}'",
        "basic": f"Authorization: Basic {some(40)}",
        "password in code": f"password = {token('Tr0ub4', 'dor&3x')!r}",
        "password in YAML": f"db_password: {token('hunter2', '!hunter2')}",
        "password of SQL Server": f"Server=x;User Id=sa;Password={token('Abc', '12345!xy')};",
        "lower case": f"my_service_api_key: {some(32)}",
        "age": token("AGE-SECRET", "-KEY-1", some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L")),
        "PuTTY": token("PuTTY-User-", "Key-File-3: ssh-rsa"),
    }


def where(folder):
    """What the scanner says about `folder`, or nothing."""
    try:
        assert_no_secrets(folder)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", secrets())
def test_a_secret_is_found_and_not_repeated(kind, tmp_path):
    forms = ["# Card\n\nAs I said: {}", "\n\n| limits | {} |\n", "\n\nx = ({})\n"]
    for seed in range(5):
        secret = secrets(seed)[kind]
        for form in forms:
            (tmp_path / "README.md").write_text(form.format(secret), encoding="utf-8")
            said = where(tmp_path)
            assert said.startswith("README.md holds "), (form, secret)
            assert "(line 3)" in said or "\n" in secret
            assert not any(part in said for part in secret.split() if len(part) > 20)


def test_there_are_kinds_enough():
    assert len(secrets()) >= 34 and len(set(secrets().values())) == len(secrets())


ORDINARY = {
    "git hashes": " ".join(hashlib.sha1(bytes([i])).hexdigest() for i in range(200)),
    "digests": "\n".join(f"weights: {hashlib.sha256(bytes([i])).hexdigest()}" for i in range(200)),
    "a listing": "\n".join(
        f"{10**8 + i}:{hashlib.sha1(bytes([i])).hexdigest()}" for i in range(99)
    ),
    "JSON digests": json.dumps(
        {f"sha256_{i}": hashlib.sha256(bytes([i])).hexdigest() for i in range(9)}
    ),
    "base64 digests": "\n".join(
        "sha256-" + base64.b64encode(hashlib.sha256(bytes([i])).digest()).decode()
        for i in range(200)
    ),
    "identities": "identity 01234567-89ab-4cde-8f01-23456789abcd",
    "model names": "Qwen/Qwen2.5-1.5B-Instruct, HuggingFaceTB/SmolLM2-360M-Instruct, "
    "meta-llama/Llama-3.2-3B-Instruct, model_key: Qwen/Qwen2.5-1.5B-Instruct",
    "a tokenizer": '{"pad_token": "<pad>", "eos_token": "<|endoftext|>", "unk_token": null, '
    '"bos_token": {"content": "<|begin_of_text|>"}, "additional_special_tokens": ["[INST]"]}',
    "settings": '{"lora_targets": ["q_proj"], "trainable_token_indices": null, '
    '"token_type": "bearer"}',
    "a card's words": "The end token: 2. Password resets fail for one user; secret: none. The "
    "token `checkpoint-500` is a basic understanding-of-things-matter. Key: severity. "
    "api_key: your-key-here OPENAI_API_KEY=your_openai_api_key, `hf auth login`, sk-learn, "
    "tokens: 1,234,567.",
    "an alert": "service: checkout-api, change: deploy 4512, time: 2026-11-25T06:41:30Z, "
    "cause: suspected deploy 4512, next: page the on-call of auth-service-eu-west-1",
    "addresses": "https://huggingface.co/owner/name?revision=main git@github.com:owner/name.git "
    "http://localhost:8000/v1 https://example.org:443/a@b",
}


@pytest.mark.parametrize("what", ORDINARY)
def test_what_a_release_is_made_of_does_not_stop_it(what, tmp_path):
    (tmp_path / "README.md").write_text(ORDINARY[what], encoding="utf-8")
    assert where(tmp_path) == ""


def test_the_shipped_model_and_the_courses_own_pages_are_clean(tmp_path):
    from coursekit.common.profile import TINY_MODEL

    assert where(TINY_MODEL) == ""
    root = Path(TINY_MODEL).parents[2]
    for name in ("README.md", "CHANGELOG.md"):
        (tmp_path / name).write_text((root / name).read_text(encoding="utf-8"), encoding="utf-8")
    assert where(tmp_path) == ""


FOUND = {
    "SOME_API_KEY": "correct horse battery",
    "some_api_key": "correct horse battery",
    "DB_PASS": "hunter2hunter2",
    "db_password": "Sommer-2026!",
    "AZURE_CREDENTIAL": "b3-some-thing-Of-9-parts",
    "SERVICE_AUTH": "x9K2-mm41-Lq07",
    "API_TOKEN_2": "tok3n99value11",
    "AWS_ACCESS_KEY_ID": "EXAMPLEID12345678",
    "PGPASSWORD": "several words of it",
    "SIGNING_KEY": 'a "quoted"\nkey of 2 lines',
}


@pytest.mark.parametrize("name", FOUND)
def test_the_value_of_a_secret_variable_is_found_as_text_and_in_json(name, monkeypatch, tmp_path):
    (tmp_path / "notes.md").write_text(f"as I said, {FOUND[name]}", encoding="utf-8")
    assert f"the value of {name}" not in where(tmp_path)
    monkeypatch.setenv(name, FOUND[name])
    for text in (f"as I said, {FOUND[name]}", json.dumps({"said": FOUND[name]})):
        (tmp_path / "notes.md").write_text(text, encoding="utf-8")
        said = where(tmp_path)
        assert said.startswith(f"notes.md holds the value of {name} (line 1)")
        assert FOUND[name] not in said


@pytest.mark.parametrize("name", ["DATABASE_URL", "database_url", "REDIS", "SOME_PROXY"])
def test_the_password_in_an_address_is_found_alone(name, monkeypatch, tmp_path):
    monkeypatch.setenv(name, "postgres://me:" + "lockvogel@db.example.com/x")
    (tmp_path / "notes.md").write_text("we log in with lockvogel", encoding="utf-8")
    assert f"the password in {name}" in where(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SORT_KEY", "severity"),
        ("SORT_KEY", "primary-key"),
        ("MODEL_KEY", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("CACHE_KEY", "20261125"),
        ("DB_PASS", "postgres"),
        ("API_TOKEN", "short"),
        ("TOKENIZERS_PARALLELISM", "severity is false"),
        ("KEYBOARD_LAYOUT", "severity is false"),
        ("DATABASE_URL", "sqlite:///severity"),
        ("PWD", "severity is 2"),
        ("SSH_AUTH_SOCK", "severity is 2"),
        ("GOOGLE_APPLICATION_CREDENTIALS", str(Path(__file__).resolve())),
    ],
)
def test_an_ordinary_value_does_not_stop_every_release(name, value, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")  # this file may lie in yours
    monkeypatch.setenv(name, value)
    (tmp_path / "README.md").write_text(
        f"severity is 2, severity is false: {value} it is", encoding="utf-8"
    )
    assert where(tmp_path) == ""


@pytest.mark.parametrize("home", ["/home/me", "/roots", r"C:\Users\me"])
def test_the_path_of_the_home_folder_is_found(home, monkeypatch, tmp_path):
    import pathlib

    path = pathlib.PureWindowsPath(home) if "\\" in home else Path(home)
    monkeypatch.setattr(Path, "home", lambda: path)
    for text in (f"see {home}/mine", f"cd {home}", json.dumps(home), f"file://{home}/x"):
        (tmp_path / "notes.md").write_text(text, encoding="utf-8")
        assert "home folder" in where(tmp_path), text
    (tmp_path / "notes.md").write_text(
        "https://example.org/home/men, /home/melon, s3:b/roots/x", encoding="utf-8"
    )
    assert where(tmp_path) == ""


def test_a_home_that_is_the_root_stops_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    (tmp_path / "README.md").write_text("https://example.org/ and /usr/bin", encoding="utf-8")
    assert where(tmp_path) == ""


def test_it_reads_other_encodings_deep_files_and_the_header_of_weights(tmp_path):
    import torch
    from safetensors.torch import save_file

    deep = tmp_path / "some" / "where"
    deep.mkdir(parents=True)
    secret = secrets()["Hugging Face"]
    (deep / "notes.txt").write_text(secret, encoding="utf-16")
    assert where(tmp_path).startswith("some/where/notes.txt holds a Hugging Face token")
    (deep / "notes.txt").unlink()
    weights = {"a": torch.frombuffer(bytearray(secret.encode()), dtype=torch.uint8)}
    save_file(weights, tmp_path / "w.safetensors")  # numbers that happen to look like one
    assert where(tmp_path) == ""
    save_file(weights, tmp_path / "w.safetensors", metadata={"made by": secret})
    assert where(tmp_path).startswith("w.safetensors holds a Hugging Face token")


def test_without_detect_secrets_it_warns_and_knows_the_rest(monkeypatch, tmp_path):
    """As on a machine that has only what training needs."""
    monkeypatch.setattr(secret_scan, "find_spec", lambda name: None)
    secret_scan._detectors.cache_clear()
    missed = []
    with pytest.warns(UserWarning, match="detect-secrets is not installed"):
        for kind, secret in secrets().items():
            (tmp_path / "file.txt").write_text(secret, encoding="utf-8")
            if not where(tmp_path):
                missed.append(kind)
    secret_scan._detectors.cache_clear()
    assert 0 < len(missed) < len(secrets()) / 5, missed
